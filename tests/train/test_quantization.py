"""Quantization-aware training: rounding and its gradients, what is stored, and runs from a float model to integers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from artifacts import artifact, colour_photos
from interrupted import killed_at
from networks import images, random_weights, tiny
from smallcnn import zoo
from smallcnn.data.order import order
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError, GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.model.store import load, save
from smallcnn.module import to_module
from smallcnn.reference import floating, integer
from smallcnn.tasks.classification import Classification
from smallcnn.train.calibration import calibrated, to_quantize
from smallcnn.train.fake_quantization import FakeQuantized, fake_quantize, fake_quantize_weight
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train
from smallcnn.train.start import start
from smallcnn.transform.quantize import Settings, find_edges, insert, quantize, ready
from smallcnn.transform.quantize.ranges import choose_grid, look, together

SHORT = Recipe(epochs=2, batch_size=8, lr=0.01, weight_decay=0.0, quantize=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A float model of the photos."""
    recipe = Recipe(epochs=3, batch_size=8)
    return train(tiny(), photos, tmp_path_factory.mktemp("float"), recipe=recipe).best


# --- rounding ---


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-100, 155), (-128, 127)])
def test_activations_are_rounded_as_torch_rounds_them(low, high):
    """Torch's operator, the gradient too; the scale a power of two, so that a division and a product are the same."""
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0)) * 20
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = fake_quantize(ours, torch.tensor(0.125, requires_grad=True), low, high, 1.0)
    z = torch.fake_quantize_per_tensor_affine(theirs, 0.125, -low, 0, high - low)
    assert torch.equal(y, z)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y.backward(slope)
    z.backward(slope)
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < (ours.grad == 0).sum() < x.numel()


def test_the_gradient_of_a_scale_is_that_of_lsq():
    """Equation 3 of arXiv 1902.08153, in float64: -x/s + round(x/s) inside, the bound outside; times the factor."""
    rng = np.random.default_rng(0)
    x, slope = rng.normal(0, 20, (3, 50)), rng.normal(0, 1, (3, 50))
    steps = x / 0.1
    inside = (steps > -60.5) & (steps < 195.5)
    per_value = np.where(inside, np.rint(steps) - steps, np.clip(steps, -60, 195))
    scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    fake_quantize(torch.from_numpy(x), scale, -60, 195, 0.25).backward(torch.from_numpy(slope))
    np.testing.assert_allclose(scale.grad, 0.25 * (slope * per_value).sum(), rtol=1e-9)
    assert 0 < inside.sum() < x.size


def test_weights_are_rounded_as_torch_rounds_them():
    """Per output, symmetric, on a grid that ends at the largest; the gradient passes through."""
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight.data[2] = 0
    scale = weight.detach().abs().amax((1, 2, 3)).double().div(127).float().clamp(min=1e-20)
    want = torch.fake_quantize_per_channel_affine(
        weight.detach(), scale, torch.zeros(6, dtype=torch.int32), 0, -127, 127
    )
    got = fake_quantize_weight(weight)
    torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=0)  # x * (1 / scale) there, x / scale here
    got.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


# --- the module and what it stores ---


def quantized(graph, seed=0):
    """(the module, prepared images): calibrated on these images, then moved a little, as training does."""
    graph, weights = ready(graph, random_weights(graph, seed))
    batch, probe = images(graph, 4), to_module(graph, weights).eval()
    seen = {graph.nodes[0].name: look(batch)}
    for name in set(find_edges(graph).names) - seen.keys():
        probe.get_submodule(name).register_forward_hook(
            lambda _m, _i, y, name=name: seen.update({name: look(y.numpy())})
        )
    with torch.no_grad():
        probe(torch.from_numpy(batch).movedim(-1, 1))
    grids = {
        name: choose_grid(together([seen[one] for one in group]))
        for group in find_edges(graph).groups
        for name in group
    }
    module = FakeQuantized(insert(graph, weights, grids)[0], weights).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
    return module, batch


NETWORKS = [
    tiny(),
    zoo.mobilenet_v2(width=0.25, resolution=32, classes=5),
    zoo.mobilenet_v3_small(width=0.35, resolution=32, classes=5),  # squeeze and excite, hard swish
    zoo.shufflenet_v2(scale=0.5, resolution=32, classes=5),  # slices, concats, shuffles
    zoo.squeezenet_1_1(resolution=48, classes=5),  # no batch norm, max pools of concats
]


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_the_stored_integers_answer_as_the_module(graph):
    """The definition in whole numbers against torch in float32, which now and then rounds a tie the other way."""
    module, batch = quantized(graph)
    with torch.no_grad():
        got = module(torch.from_numpy(batch).movedim(-1, 1)).numpy()
    stored_graph, weights = module.stored()
    assert stored_graph.integer
    want = integer.run(stored_graph, weights, batch)["logits"]
    noise, signal = np.square(got - want).mean(), np.square(want - want.mean()).mean()
    assert 10 * np.log10(signal / max(noise, 1e-30)) > 40
    assert {weights[name].dtype for name in weights} == {np.dtype(np.int8), np.dtype(np.int32)}
    assert {node.op.grid.zero for node in stored_graph if isinstance(node.op, ops.Conv | ops.Dense)} == {
        (0,) * node.op.out for node in stored_graph if isinstance(node.op, ops.Conv | ops.Dense)
    }


def joined():
    """Two edges that share a grid; 3 classes."""
    g = Builder(input=(8, 8, 3))
    one, two, three = (g.conv(g.input, 4, name=f"conv{i}") for i in range(3))
    x = g.concat(
        g.activation(one, "relu", name="first"), g.max_pool(two, kernel=3, stride=1, name="second"), name="join"
    )
    x = g.add(g.conv(x, 4, name="mix"), three, name="sum")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="joined")


def test_joined_edges_learn_one_scale_and_the_image_keeps_its_own():
    module, batch = quantized(joined())
    module.train()(torch.from_numpy(batch).movedim(-1, 1)).square().sum().backward()
    learned = [name.removesuffix(".scale") for name in module.state_dict() if name.endswith(".scale")]
    assert sorted(learned) == ["conv0_bytes", "conv1_bytes", "conv2_bytes", "mix_bytes", "pool_bytes", "sum_bytes"]
    assert module.get_submodule("conv0_bytes").scale is module.get_submodule("conv1_bytes").scale
    parameters = dict(module.named_parameters())
    assert len([name for name in parameters if name.endswith(".scale")]) == 5
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in parameters.values())


def test_a_filter_of_zeros_and_a_large_bias_can_be_stored():
    module, batch = quantized(tiny())
    with torch.no_grad():
        module.get_submodule("stem.conv").weight[1] = 0
        module.get_submodule("stem.conv").bias[1] = 1e3
    graph, weights = module.stored()
    grid = graph.weights["stem.conv.bias"].tensor.grid
    assert weights["stem.conv.bias"][1] * grid.scale[1] == pytest.approx(1e3, rel=1e-6)
    assert not weights["stem.conv.weight"][1].any()
    assert np.isfinite(integer.run(graph, weights, batch)["logits"]).all()


# --- runs ---


def test_a_run_gives_integers_and_is_judged_by_them(trained, photos, tmp_path):
    """The validation top-1 of each file is that of the definition on the validation images."""
    result = train(load(trained), photos, tmp_path, recipe=replace(SHORT, ema=0.9))
    source = open_source(photos, val_fraction=SHORT.val_fraction)
    for name, score in (("last", "val"), ("last_ema", "averaged")):
        model = load(tmp_path / f"{name}.safetensors")
        assert model.graph.integer
        assert {value.dtype for value in model.weights.values()} == {np.dtype(np.int8), np.dtype(np.int32)}
        split = source.splits["val"]
        pixels = np.stack([model.preprocessing.prepare(image).pixels for image in split.images])
        logits = integer.run(model.graph, model.weights, model.preprocessing.normalise(pixels))["logits"]
        top1 = float((logits.argmax(1) == split.labels).mean())
        assert getattr(result.history[-1], score)["top1"] == top1
        assert model.facts.scores["top1"] == top1


def test_validation_sees_the_stored_integers_alone(trained, photos, tmp_path, monkeypatch):
    """Had the file nothing but zeros, all three classes would be equally likely."""

    def zeros(self):
        graph, weights = stored(self)
        return graph, {name: np.zeros_like(value) for name, value in weights.items()}

    stored = FakeQuantized.stored
    monkeypatch.setattr(FakeQuantized, "stored", zeros)
    (epoch,) = train(load(trained), photos, tmp_path, recipe=replace(SHORT, epochs=1, ema=0.9)).history
    assert epoch.val["loss"] == pytest.approx(np.log(3))
    assert epoch.averaged["loss"] == pytest.approx(np.log(3))


def test_training_moves_weights_and_scales(trained, photos, tmp_path):
    start = load(trained)
    still = load(train(start, photos, tmp_path / "still", recipe=replace(SHORT, lr=1e-12)).last)
    moved = load(train(start, photos, tmp_path / "moved", recipe=SHORT).last)
    assert any((still.weights[name] != moved.weights[name]).any() for name in still.weights)
    before, after = (
        [node.op.grid for node in one.graph if isinstance(node.op, ops.Quantize)] for one in (still, moved)
    )
    assert before[0] == after[0]  # the image
    assert all(a.scale != b.scale and a.zero == b.zero for a, b in zip(before[1:], after[1:], strict=True))


def test_before_training_the_network_is_the_float_one_rounded(trained, photos, tmp_path):
    start = load(trained)
    end = load(train(start, photos, tmp_path, recipe=replace(SHORT, epochs=1, lr=1e-12)).last)
    images = open_source(photos, val_fraction=SHORT.val_fraction).splits["train"].images
    pixels = np.stack([start.preprocessing.prepare(image).pixels for image in images])  # biases are right for these
    want = floating.run(start.graph, start.weights, start.preprocessing.normalise(pixels))["logits"]
    got = integer.run(end.graph, end.weights, end.preprocessing.normalise(pixels))["logits"]
    assert np.square(got - want).mean() < 1e-3 * np.square(want - want.mean()).mean()  # 30 dB


def test_a_run_begins_with_what_post_training_quantization_makes(trained, photos):
    """The module stores what it was given. `quantize` computes by definition here, `calibrated` in torch."""
    split = open_source(photos, val_fraction=SHORT.val_fraction).splits["train"]
    model = load(trained)
    beginning = to_quantize(start(model, open_source(photos), None, 0))
    begun = calibrated(beginning, split, seed=0, device=torch.device("cpu"), workers=1)
    module = FakeQuantized(insert(begun.graph, begun.weights, begun.grids)[0], begun.weights)
    got_graph, got = module.stored()

    pixels = np.stack([model.preprocessing.prepare(split.images[i]).pixels for i in order(split, 0, 0)[:128]])
    made, _ = quantize(model, pixels, Settings(compensate=False))
    assert [node.name for node in got_graph] == [node.name for node in made.graph]
    grids = [[node.op.grid for node in graph if hasattr(node.op, "grid")] for graph in (got_graph, made.graph)]
    for one, other in zip(*grids, strict=True):
        assert one.zero == other.zero
        assert one.scale == pytest.approx(other.scale, rel=1e-5)
    weight = [name for name in got if name.endswith(".weight")]
    assert all(np.array_equal(got[name], made.weights[name]) for name in weight)
    assert all(np.abs(got[name] - made.weights[name]).max() <= 2 for name in got.keys() - weight)  # int32


def test_a_run_resumes_bit_for_bit(photos, tmp_path, monkeypatch):
    model, teacher = artifact(joined()), tmp_path / "float.safetensors"
    save(model, teacher)
    recipe = replace(SHORT, ema=0.9, augment="photo")
    whole = train(model, photos, tmp_path / "whole", recipe=recipe, teacher=teacher)
    killed_at(3, monkeypatch, lambda: train(model, photos, tmp_path / "cut", recipe=recipe, teacher=teacher))
    with monkeypatch.context() as patch:
        patch.setattr("smallcnn.train.run.calibrated", None)  # the grids are in the checkpoint
        cut = resume(tmp_path / "cut")
        assert train(model, photos, tmp_path / "cut", recipe=recipe, teacher=teacher, resume=True).finished
    for name in ("last.safetensors", "last_ema.safetensors", "checkpoint.safetensors"):
        first, second = (load_file(folder / name) for folder in (whole.folder, cut.folder))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first), name
    assert load(whole.last).graph == load(cut.last).graph


def test_attributes_are_trained_too(tmp_path):
    """Without a teacher, which is for classes."""
    colour_photos(tmp_path / "images")
    table = tmp_path / "images" / "attributes.csv"
    rows = [f"{path.parent.name}/{path.name},{int(path.parent.name == 'red')},{i % 2}"
            for i, path in enumerate(sorted((tmp_path / "images").rglob("*.png")))]  # fmt: skip
    table.write_text("file,warm,odd\n" + "\n".join(rows) + "\n")
    g = Builder(input=(16, 16, 3))
    x = g.conv_bn(g.input, 4, kernel=3, stride=2, name="stem")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 2, name="classifier"), features=x, name="pair")
    start = train(graph, table, tmp_path / "float", recipe=Recipe(epochs=1, batch_size=8))
    end = load(train(load(start.last), table, tmp_path / "int8", recipe=SHORT).last)
    assert end.graph.integer
    assert end.task.kind == "attributes"


# --- the command and what it refuses ---


def test_the_command_distils_from_the_file(smallcnn, trained, photos, tmp_path):
    flags = ["--data", photos, "--quantize", "--epochs", 1, "--batch-size", 8, "--json"]
    code, out, err = smallcnn("train", "--from", trained, "--out", tmp_path / "run", *flags)
    assert code == 0, err
    said = json.loads(out)
    model = load(said["best"])
    assert model.graph.integer
    kept = tmp_path / "run" / "teacher.safetensors"
    assert model.facts.teacher["file"] == kept.name  # in the run's folder, which may move
    kept, start = (load(path).weights for path in (kept, trained))
    assert all(np.array_equal(kept[name], start[name]) for name in start)
    assert model.facts["recipe"]["lr"] == pytest.approx(0.1 * 8 / 64 / 100)
    assert "quantization-aware training needs torch in float32" in err
    code, out, err = smallcnn("evaluate", said["best"], "--data", photos, "--json")
    assert json.loads(out)["top1"] == said["best_val_top1"], err


def test_a_model_in_memory_is_its_own_teacher(trained, photos, tmp_path, monkeypatch):
    """As if its file had been given; the run keeps it, wherever the folder goes."""

    def weights(name, **options):
        return load(
            train(load(trained), photos, tmp_path / name, recipe=replace(SHORT, epochs=1), **options).last
        ).weights

    given, own, none = weights("given", teacher=trained), weights("own"), weights("none", distil_weight=0.0)
    assert all(np.array_equal(given[name], own[name]) for name in given)
    assert any(not np.array_equal(none[name], own[name]) for name in own)
    killed_at(1, monkeypatch, lambda: weights("cut"))
    (tmp_path / "cut").rename(tmp_path / "moved")
    resumed = load(resume(tmp_path / "moved").last).weights
    assert all(np.array_equal(resumed[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"compute": "kernels"}, "--compute kernels is not for quantization-aware training"),
        ({"compute": "compile"}, "--compute compile is not for quantization-aware training"),
        ({"precision": "bfloat16"}, "--precision bfloat16 is not for quantization-aware training"),
    ],
)
def test_only_torch_in_float32_computes_it(trained, photos, tmp_path, options, problem):
    with pytest.raises(DataError, match=problem):
        train(load(trained), photos, tmp_path / "run", recipe=SHORT, **options)


def test_it_starts_from_a_model_that_knows_the_labels(trained, photos, tmp_path):
    with pytest.raises(DataError, match="--quantize starts from a trained model"):
        train(tiny(), photos, tmp_path / "run", recipe=SHORT)
    model = load(trained)
    other = replace(model, task=Classification(("a", "b", "c")))
    with pytest.raises(DataError, match="tiny does not know the labels of the data; train it on them"):
        train(other, photos, tmp_path / "run", recipe=SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("quantize", [True, False])
def test_a_quantized_model_is_no_start(trained, photos, tmp_path, quantize):
    done = train(load(trained), photos, tmp_path / "run", recipe=replace(SHORT, epochs=1))
    with pytest.raises(DataError, match="tiny is already quantized; train the float model"):
        train(load(done.last), photos, tmp_path / "again", recipe=replace(SHORT, quantize=quantize))


def test_an_operator_without_an_integer_form_is_named(photos, tmp_path):
    g = Builder(input=(16, 16, 3))
    x = g.local_response_norm(g.conv(g.input, 4, name="stem"), size=3, alpha=1.0, beta=0.75, bias=1.0, name="lrn")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="old")
    with pytest.raises(GraphError, match="lrn: a local_response_norm has no integer form"):
        train(artifact(graph), photos, tmp_path / "run", recipe=SHORT)
