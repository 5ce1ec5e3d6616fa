import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from networks import detector, dilated, every_number, every_op, images, random_weights, resized, tiny
from smallcnn import zoo
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.module import to_module, to_weights
from smallcnn.reference import floating as reference
from smallcnn.reference.initial import initial_weights

GRAPHS = [every_op(), tiny(), dilated(), resized(), zoo.mobilenet_v1(width=0.25, resolution=(33, 48), classes=5)]


def inputs(graph: Graph, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(N, C, H, W), contiguous."""
    return torch.from_numpy(images(graph)).movedim(-1, 1).contiguous().to(dtype)


def answer(graph: Graph, weights: dict[str, np.ndarray]) -> np.ndarray:
    return reference.answer(graph, weights, images(graph))


# --- values ---


def test_the_toy_networks_have_every_operator():
    found = [node.op for graph in (every_number(), detector(), resized()) for node in graph]
    assert {op.kind for op in found} == set(ops.OPS)
    assert {op.function for op in found if isinstance(op, ops.Activation)} == set(get_args(ops.ActivationKind))


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_agrees_with_the_reference(graph):
    """In float64 both sides differ by rounding alone: 2^-53 of the values, some hundred times over."""
    weights = random_weights(graph)
    want = answer(graph, weights)
    with torch.no_grad():
        got = to_module(graph, weights).eval().double()(inputs(graph))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * np.abs(want).max())


def test_several_outputs_are_real_numbers_by_name():
    """Bytes come out as what they stand for: 0.004 (stored - 3), the scale rounded to float32."""
    graph = every_number()
    weights = random_weights(graph)
    want = reference.run(graph, weights, images(graph))
    with torch.no_grad():
        got = to_module(graph, weights).eval().double()(inputs(graph))
    assert list(got) == ["logits", "codes"]
    codes = (want["codes"].astype(np.float64) - 3) * np.float64(np.float32(0.004))
    np.testing.assert_allclose(got["codes"].movedim(1, -1), codes, rtol=1e-7)
    np.testing.assert_allclose(got["logits"], want["logits"], rtol=0, atol=1e-6 * np.abs(want["logits"]).max())


@pytest.mark.parametrize("number", ["uint8", "int8"])
def test_quantize_is_straight_through(number):
    """Values by numpy's definition, exactly; the gradient 1 where the value is within the grid, else 0."""
    g = Builder(input=(1, 64, 1))
    end = g.dequantize(g.quantize(g.input, number, scale=0.1, zero=5))
    module = to_module(g.graph(end, features=g.input, name="grid"))
    x = torch.linspace(-20, 40, 64).reshape(1, 1, 1, 64).requires_grad_()
    y = module(x)
    y.sum().backward()
    scale = np.float32(0.1)
    low, high = (np.iinfo(number).min - 5, np.iinfo(number).max - 5)
    steps = np.clip(np.rint(x.detach().numpy() / scale), low, high)
    np.testing.assert_array_equal(y.detach().numpy(), steps * scale)
    inside = (x.detach() >= float(low * scale)) & (x.detach() <= float(high * scale))
    assert torch.equal(x.grad, inside.float())
    assert 0 < inside.sum() < 64


def test_stored_weights_come_back_as_they_were():
    weights = random_weights(every_number())
    got = to_weights(to_module(every_number(), weights))
    assert {name: (value.dtype, value.tobytes()) for name, value in got.items()} == {
        name: (value.dtype, value.tobytes()) for name, value in weights.items()
    }


@pytest.mark.parametrize("function", ["max", "average"])
@pytest.mark.parametrize(
    ("kernel", "padding"),
    [
        ((3, 3), ((1, 1), (1, 1))),
        ((3, 2), ((0, 1), (1, 0))),
        ((3, 3), ((2, 2), (2, 2))),  # torch's own pools take no more than half the window
        ((4, 1), ((2, 2), (0, 0))),
        ((2, 3), ((1, 1), (1, 1))),
    ],
    ids=str,
)
@pytest.mark.parametrize("count_padding", [False, True])
def test_pools_agree_with_the_reference(function, kernel, padding, count_padding):
    g = Builder(input=(5, 6, 3))
    options = {"count_padding": count_padding} if function == "average" else {}
    x = getattr(g, f"{function}_pool")(g.input, kernel=kernel, stride=(1, 2), padding=padding, **options)
    graph = g.graph(x, features=x, name="net")
    got = to_module(graph)(inputs(graph) - 5).movedim(1, -1)  # below 0: a zero from the padding must not win
    want = reference.answer(graph, {}, images(graph).astype(np.float64) - 5)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)  # sums of at most 9 values near 5


def shared_by_a_sum(g):
    x = g.conv(g.input, 4)
    return g.add(x, g.activation(x, "relu")), None


def on_a_slice(g):
    x = g.conv(g.input, 4)
    few, many = g.split(x, (1, 3))
    return g.concat(g.activation(few, "relu"), many, x), None


def on_the_image(g):
    return g.add(g.activation(g.input, "relu"), g.input), None


def after_dropout(g):
    x = g.conv(g.input, 4)
    return g.add(g.activation(g.dropout(x, 0.5), "relu"), x), None


def first_of_the_head(g):
    x = g.conv(g.input, 4)
    return g.activation(x, "relu"), x


@pytest.mark.parametrize(
    "make",
    [shared_by_a_sum, on_a_slice, on_the_image, after_dropout, first_of_the_head],
    ids=lambda make: make.__name__,
)
def test_an_activation_writes_over_nothing_that_is_still_needed(make):
    g = Builder(input=(4, 5, 2))
    end, features = make(g)
    graph = g.graph(end, features=features or end, name="net")
    weights = random_weights(graph)
    model, batch = to_module(graph, weights).eval().double(), inputs(graph)
    with torch.no_grad():
        maps = model.forward_features(batch)
        before = maps.clone()
        got = model.forward_head(maps).movedim(1, -1)
    np.testing.assert_allclose(got, answer(graph, weights), rtol=0, atol=1e-14)  # sums of 2 products near 1
    assert torch.equal(batch, inputs(graph)), "the caller's images"
    assert torch.equal(maps, before), "the caller's features"


def test_float32_is_as_close_as_float32_can_be():
    """Each of the 28 layers one after another rounds about 2^-24 of its largest value; ten times that is left."""
    graph = GRAPHS[2]
    weights = random_weights(graph)
    want = answer(graph, weights)
    with torch.no_grad():
        got = to_module(graph, weights).eval()(inputs(graph, torch.float32))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=10 * 28 * 2**-24 * np.abs(want).max())


# --- training ---


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_gradients_reach_every_parameter(graph):
    model = to_module(graph, random_weights(graph)).train()
    model(inputs(graph, torch.float32)).square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("function", get_args(ops.ActivationKind))
def test_gradients_against_differences(function):
    """Activations work in place where they may: the gradient through them and the layers before is still right."""
    g = Builder(input=(3, 4, 2))
    x = g.conv_bn(g.input, 4, kernel=3, activation=function, name="a")
    x = g.activation(g.add(x, g.conv(x, 4, kernel=(1, 3))), function)
    y = g.activation(g.dense(g.global_pool(x), 3), function)
    graph = g.graph(y, features=x, name="net")
    model = to_module(graph, random_weights(graph)).train().double()
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (inputs(graph).requires_grad_(), *model.parameters()))


def test_dropout_and_statistics_only_move_while_training():
    model, batch = to_module(every_op()), inputs(every_op(), torch.float32)
    running = model.get_buffer("stem.bn.running_mean")
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(batch), model(batch))
        assert not running.any()
        model.train()
        torch.manual_seed(0)
        assert not torch.equal(model(batch), model(batch))
        assert running.all()


# --- the interface ---


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_features_and_head_make_the_whole(graph):
    model, batch = to_module(graph).eval(), inputs(graph, torch.float32)
    with torch.no_grad():
        maps = model.forward_features(batch)
        height, width, channels = graph[graph.features].shape
        assert maps.shape == (2, channels, height, width)
        assert torch.equal(model.forward_head(maps), model(batch))


def test_the_features_may_be_the_image_or_the_answer():
    g = Builder(input=(4, 4, 2))
    end = g.conv(g.input, 3)
    batch = torch.ones(1, 2, 4, 4)
    all_head = to_module(g.graph(end, features=g.input, name="head"))
    all_backbone = to_module(g.graph(end, features=end, name="backbone"))
    assert torch.equal(all_head.forward_features(batch), batch)
    assert torch.equal(all_backbone.forward_features(batch), all_head(batch))
    assert torch.equal(all_backbone.forward_head(batch), batch)


def test_a_head_that_reads_an_earlier_map_cannot_run_alone():
    g = Builder(input=(4, 4, 2))
    early = g.conv(g.input, 3, name="early")
    late = g.conv(early, 3, name="late")
    module = to_module(g.graph(g.add(early, late), features=late, taps=[early], name="taps"))
    batch = torch.ones(1, 2, 4, 4)
    with pytest.raises(GraphError, match=r"^taps: its head also reads early$"):
        module.forward_head(module.forward_features(batch))


def test_the_head_of_several_outputs_cannot_run_alone():
    module = to_module(every_number())
    with pytest.raises(GraphError, match=r"^every_number has 2 outputs \(logits, codes\), not one$"):
        module.forward_head(module.forward_features(inputs(every_number(), torch.float32)))


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_state_dict_is_the_graphs_weights(graph):
    model = to_module(graph)
    assert [(name, tuple(value.shape)) for name, value in model.state_dict().items()] == [
        (name, weight.shape) for name, weight in graph.weights.items()
    ]
    assert {name for name, _ in model.named_parameters()} == {name for name, w in graph.weights.items() if w.learned}


def test_weights_round_trip_bitwise():
    weights = random_weights(every_op())
    got = to_weights(to_module(every_op(), weights))
    assert [(name, value.tobytes()) for name, value in got.items()] == [
        (name, value.tobytes()) for name, value in weights.items()
    ]
    assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in got.values())


def test_weights_are_copied_in_and_out():
    given = random_weights(tiny())
    model = to_module(tiny(), given)
    given["classifier.bias"][:] = 7
    to_weights(model)["classifier.bias"][:] = 8
    assert np.array_equal(to_weights(model)["classifier.bias"], random_weights(tiny())["classifier.bias"])


def test_a_state_dict_is_loaded_strictly_whoever_made_it():
    weights = random_weights(every_op())
    plain = {name: torch.from_numpy(value) for name, value in weights.items()}  # as safetensors reads it
    for state in (plain, to_module(every_op(), weights).state_dict()):
        model = to_module(every_op())
        model.load_state_dict(state)
        got = to_weights(model)
        assert all(got[name].tobytes() == value.tobytes() for name, value in weights.items())


def test_without_weights_the_initial_ones_of_the_seed_are_used():
    got, want = to_weights(to_module(tiny(), seed=3)), initial_weights(tiny(), seed=3)
    assert all(np.array_equal(got[name], want[name]) for name in want)
    assert not np.array_equal(want["stem.conv.weight"], initial_weights(tiny(), seed=4)["stem.conv.weight"])


def test_initial_weights():
    """Variance 2 / fan-in (He et al.); depthwise 0.2 around the identity; dense 0.01; norm the identity."""
    g = Builder(input=(8, 8, 64))
    x = g.depthwise_bn(g.conv_bn(g.input, 512, kernel=3, name="full"), kernel=3, name="depth")
    graph = g.graph(g.dense(g.global_pool(x), 1000, name="fc"), features=x, name="net")
    weights = initial_weights(graph)
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    for name, mean, want in (("full.conv", 0, (2 / (9 * 64)) ** 0.5), ("depth.conv", identity, 0.2), ("fc", 0, 0.01)):
        value = weights[f"{name}.weight"] - mean
        # the standard deviation of n normal values is itself off by 1 / sqrt(2 n); five of those
        assert value.std() == pytest.approx(want, rel=5 / (2 * value.size) ** 0.5)
    assert all(value.dtype == np.float32 for value in weights.values())
    norm = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    assert all((weights[f"full.bn.{key}"] == value).all() for key, value in norm.items())
    assert not weights["fc.bias"].any()


def test_weights_that_do_not_fit_are_listed_from_both_sides():
    weights = random_weights(tiny())
    weights["classifier.bais"] = weights.pop("classifier.bias")
    weights["stem.conv.weight"] = weights["stem.conv.weight"][:2]
    with pytest.raises(GraphError) as caught:
        to_module(tiny(), weights)
    assert str(caught.value) == (
        "weights do not fit tiny: 1 missing (classifier.bias); 1 surplus ('classifier.bais'); "
        "1 of a different shape (stem.conv.weight is (2, 3, 3, 3), not (4, 3, 3, 3))"
    )


def test_a_long_list_of_weights_is_cut_short():
    with pytest.raises(GraphError, match=r"12 missing \(stem.conv.weight, stem.bn.weight, stem.bn.bias, \.\.\.\)$"):
        to_module(tiny(), {})


@pytest.mark.parametrize("name", ["forward", "block.forward", "eval.conv", "graph"])
def test_a_name_that_torch_needs_itself(name):
    g = Builder(input=(4, 4, 2))
    x = g.conv(g.input, 2, name=name)
    with pytest.raises(GraphError, match=f"^{name}: .* is a name that torch.nn.Module uses itself; rename the node"):
        to_module(g.graph(x, features=x, name="net"))


def test_another_input_size_works():
    """Padding stays that of 32 x 32; sides that the strides divide give what a graph built for them gives."""
    small, large = (zoo.mobilenet_v1(width=0.25, resolution=side, classes=5) for side in (32, 64))
    weights = random_weights(small)
    want = answer(large, weights)
    with torch.no_grad():
        got = to_module(small, weights).eval().double()(inputs(large))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * np.abs(want).max())  # float64, as above


# --- how it runs ---


@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_a_graph_break(training):
    graph = every_op()
    model, batch = to_module(graph, random_weights(graph)).train(training), inputs(graph, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    got = compiled(batch)
    torch.manual_seed(0)
    assert torch.equal(got, model(batch)), "the same operations in the same order"


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_channels_last(graph):
    """Another order of summation, in float64: rounding alone."""
    weights = random_weights(graph)
    model = to_module(graph, weights).eval().double().to(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = model.forward_features(inputs(graph).contiguous(memory_format=torch.channels_last))
        got = model.forward_head(maps)
    assert maps.is_contiguous(memory_format=torch.channels_last), "no layer falls back to channels first"
    want = answer(graph, weights)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * np.abs(want).max())


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_bfloat16_autocast(graph):
    """bfloat16 keeps 8 bits: each layer rounds 2^-9 of its values, which tens of layers add up to a few per cent."""
    weights = random_weights(graph)
    model = to_module(graph, weights).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = model(inputs(graph, torch.float32))
    assert got.dtype == torch.bfloat16, "autocast was in force"
    want = answer(graph, weights)
    np.testing.assert_allclose(got.float(), want, rtol=0, atol=0.1 * np.abs(want).max())


def test_without_torch_the_extra_is_named():
    code = "import sys; sys.modules['torch'] = None; import smallcnn.module"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("a torch module needs the 'train' extra: pip install 'smallcnn[train]'")
