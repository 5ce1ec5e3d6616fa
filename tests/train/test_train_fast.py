"""Training kernels against PyTorch's own layers, in float64 where a tolerance must be tight."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smallcnn import zoo
from smallcnn.errors import CompileError
from smallcnn.ir.builder import Builder
from smallcnn.module import to_module
from smallcnn.train.fast import accelerate, native
from smallcnn.train.fast.native import library
from smallcnn.transform.undecided import undecided
from squares import detector

try:
    library()
except CompileError as error:
    pytest.skip(str(error), allow_module_level=True)

EVERY_ACT = [None, "relu", "relu6", "leaky_relu", "hard_swish"]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def images(graph, count=3, seed=0):
    height, width, channels = graph.input_shape
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def with_random_norms(module):
    """Batch norms that do something: scales of both signs, shifts, running statistics."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module


def differentiate(module, function, x):
    """Everything a step computes: results, gradients of input and parameters, buffers after it."""
    x = x.clone().requires_grad_()
    result = function(x)
    results = result if isinstance(result, dict) else {"result": result}
    chance, total = torch.Generator().manual_seed(2), 0
    for one in results.values():
        total += (one * torch.randn(one.shape, generator=chance, dtype=torch.float64).to(one.dtype)).sum()
    total.backward()
    found = {"input": x.grad} | {name: one.detach() for name, one in results.items()}
    found |= {f"{name}'s gradient": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found | {name: buffer.clone() for name, buffer in module.named_buffers()}


def clear_of_the_cuts(module, graph):
    """Images for which no value is so close to a cut of ReLU6 that rounding, without FMA above all, could cross it.

    A value that crosses changes the gradients of its whole surroundings, in PyTorch's float32 as in ours.
    """
    nearest, module = [], copy.deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, nn.ReLU6):
            layer.register_forward_pre_hook(
                lambda _, given: nearest.append(min((given[0] - cut).abs().min().item() for cut in (0, 6)))
            )
    for seed in range(100):
        nearest.clear()
        x = images(graph, seed=seed)
        module(x.double())
        if min(nearest) > 1e-6:  # eight float32 roundings of values near 1
            return x
    raise AssertionError("every image has a value next to a cut")


def agree(graph, *, change=lambda module: None, clear=False):
    """Compares with the same module in float64. A number may be off by 2e-5 of the tensor's largest, or by four times
    what PyTorch's own float32 is: ahead of a batch norm some gradients are sums that vanish but for rounding. Where
    nothing is cut off between two norms, the gradient of the first one's shift is exactly 0: there the size is its
    scale's."""
    plain = with_random_norms(to_module(graph))
    change(plain)
    exact, fast = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    x = clear_of_the_cuts(exact, graph) if clear else images(graph)
    ours = differentiate(fast, accelerate(fast), x)
    torch.set_num_threads(1)  # tiny layers: more threads only wait for each other
    want, theirs = differentiate(exact, exact, x.double()), differentiate(plain, plain, x)
    assert want.keys() == ours.keys()
    for name, tensor in want.items():
        off, allowed = (ours[name] - tensor).abs(), (theirs[name] - tensor).abs().max()
        scale = want[name.replace(".bias'", ".weight'")].abs().max()
        bound = torch.where(tensor.abs() > 1e-9 * scale, 2e-5 * tensor.abs().max(), 2e-5 * scale) + 4 * allowed
        assert (off <= bound).all(), f"{name}: {off.max():.1e}, PyTorch {allowed:.1e}"


def test_a_detector_whose_rows_follow_the_kernels(threads):
    agree(undecided(detector(2)), clear=True)


def test_an_output_that_other_layers_read_too(two_threads):
    g = Builder(input=(6, 5, 3))
    x = g.conv_bn(g.input, 8, kernel=3, name="stem")
    y = g.conv_bn(x, 12, activation="hard_swish", name="next")
    pooled = g.global_pool(y, name="pool")
    agree(
        g.graph({"early": x, "late": y, "logits": g.dense(pooled, 4, name="last"), "mean": pooled}, features=y),
        clear=True,
    )


# channels below, at, just past one and two registers; planes smaller than the window; every parity of a stride
WINDOWS = [
    {"kernel": 3, "stride": 1, "padding": 1},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 3, "stride": 2, "padding": ((0, 1), (0, 1))},
    {"kernel": (1, 3), "stride": 1, "padding": ((0, 0), (1, 1))},
    {"kernel": (3, 1), "stride": (2, 1), "padding": ((1, 1), (0, 0))},
    {"kernel": 5, "stride": 2, "padding": 2},
    {"kernel": 5, "stride": 1, "padding": 2},
    {"kernel": 7, "stride": 3, "padding": 3},
    {"kernel": 1, "stride": 2, "padding": 0},
    {"kernel": 2, "stride": 2, "padding": 0},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", [(7, 9, 3), (8, 6, 16), (5, 12, 43)], ids=str)
@pytest.mark.parametrize("kind", ["depthwise", "dense"])
def test_convolutions_of_any_window(kind, shape, window, two_threads):
    g = Builder(input=shape)
    x = g.activation(g.batch_norm(g.input, name="bn0"), "relu6", name="act0")
    out = shape[2] if kind == "depthwise" else 11
    x = g.conv(x, out, groups=shape[2] if kind == "depthwise" else 1, bias=False, name="conv", **window)
    x = g.activation(g.batch_norm(x, name="bn"), "leaky_relu", slope=0.2, name="act")
    agree(g.graph(x, features=x, name="one"))


@pytest.mark.parametrize(("channels", "out", "groups"), [(3, 5, 1), (8, 16, 1), (24, 144, 1), (33, 40, 1), (12, 30, 3)])
@pytest.mark.parametrize("act", EVERY_ACT)
def test_pointwise_convolutions(channels, out, groups, act, two_threads):
    g = Builder(input=(9, 23, channels))
    x = g.conv(g.input, channels, name="first")  # with a bias
    x = g.conv(x if act is None else g.activation(x, act, name="act0"), out, groups=groups, bias=False, name="conv")
    x = g.batch_norm(x, name="bn")
    x = x if act is None else g.activation(x, act, name="act")
    agree(g.graph(x, features=x, name="one"))


@pytest.mark.parametrize("function", ["max", "average"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), ((1, 2), (1, 2), 0), (3, 2, 1), (3, 1, 1), (3, 2, ((0, 1), (0, 1)))]
)
def test_pools(function, kernel, stride, padding, two_threads):
    g = Builder(input=(9, 8, 13))
    x = g.activation(g.batch_norm(g.input, name="bn"), "leaky_relu", name="act")
    pool = g.max_pool if function == "max" else g.average_pool
    x = pool(x, kernel=kernel, stride=stride, padding=padding, name="pool")
    agree(g.graph(x, features=x, name="one"))


def test_values_with_several_readers(threads):
    g = Builder(input=(6, 5, 12))
    a = g.conv_bn(g.input, 12, activation="relu", name="a")
    b = g.conv_bn(a, 12, activation=None, name="b")
    added = g.activation(g.add(a, b, name="sum"), "relu", name="sum_act")
    twice = g.add(added, added, name="twice")
    shuffled = g.shuffle(g.conv_bn(added, 12, activation="hard_swish", name="c"), 3, name="shuffle")
    both = g.concat(twice, shuffled, a, name="both")
    x = g.global_pool(g.activation(both, "relu6", name="end"), name="pool")
    agree(g.graph(g.dense(x, 7, name="classifier"), features=both, name="readers"))


NETWORKS = [
    "effnet_cifar", "effnet_cifar:block=mobilenet", "effnet_cifar:block=shufflenet", "effnet_cifar:block=revised",
    "effnet_cifar:block=baseline", "mobilenet_v1:width=0.25,small_input=true", "mobilenet_v3_small",
    "mobilenet_v2:width=0.25,small_input=true", "shufflenet_v1:groups=3,scale=0.25,small_input=true",
    "shufflenet_v2:scale=0.5", "squeezenet_1_1",
]  # fmt: skip


@pytest.mark.parametrize("spec", NETWORKS)
def test_whole_networks(spec):
    """As far from float64 as PyTorch's own float32 is, give or take: one value that rounds to the other side of a ReLU
    moves a gradient by up to 1 %, and some gradients are sums that all but vanish."""
    graph = zoo.parse(spec).build(resolution=32, classes=10)
    plain = with_random_norms(to_module(graph))
    exact, fast = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    x = images(graph, 8)
    want = differentiate(exact, exact, x.double())
    theirs, ours = differentiate(plain, plain, x), differentiate(fast, accelerate(fast), x)
    scale = max(tensor.abs().max().item() for name, tensor in want.items() if name.endswith("gradient"))
    for name, tensor in want.items():
        off = [(found[name] - tensor).norm().item() / (tensor.norm().item() + 1e-5 * scale) for found in (theirs, ours)]
        assert off[1] <= 4 * off[0] + 2e-2, f"{name}: {off[1]:.1e}, PyTorch's float32 {off[0]:.1e}"


def _freeze_norms(module):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def _freeze_norms_and_weights(module):
    _freeze_norms(module)
    for parameter in list(module.parameters())[:4]:
        parameter.requires_grad_(False)


def _freeze_all_but_the_head(module):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))


@pytest.mark.parametrize("change", [_freeze_norms, _freeze_norms_and_weights, _freeze_all_but_the_head])
def test_frozen_layers(change):
    agree(
        zoo.parse("mobilenet_v1:width=0.25,variant=shallow").build(resolution=32, classes=10), change=change, clear=True
    )


def test_training_follows_pytorch_and_repeats_itself(threads):
    """Five steps with momentum: losses as PyTorch's, and the same bits when run again."""
    graph = zoo.parse("effnet_cifar").build(resolution=16, classes=10)
    labels = torch.randint(0, 10, (16,), generator=torch.Generator().manual_seed(5))

    def train(fast):
        module = to_module(graph)
        function = accelerate(module) if fast else module
        optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for step in range(5):
            loss = F.cross_entropy(function(images(graph, 16, step)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, module.state_dict()

    (ours, state), (again, same) = train(True), train(True)
    torch.set_num_threads(1)
    theirs, _ = train(False)
    assert ours == again
    assert all(torch.equal(state[name], same[name]) for name in state)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)  # rounding, five times amplified


def test_two_batches_on_the_way_at_once():
    graph = zoo.parse("effnet_cifar").build(resolution=16, classes=10)
    module = to_module(graph)
    function = accelerate(module)
    one, two = images(graph, 4, 1), images(graph, 4, 2)
    (function(one).square().sum() + function(two).square().sum()).backward()
    got = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    (module(one).square().sum() + module(two).square().sum()).backward()
    for ours, parameter in zip(got, module.parameters(), strict=True):
        torch.testing.assert_close(
            ours, parameter.grad, rtol=1e-3, atol=1e-4 * parameter.grad.abs().max().item() + 1e-5
        )


def test_a_batch_is_differentiated_once():
    graph = zoo.parse("effnet_cifar").build(resolution=16, classes=10)
    loss = accelerate(to_module(graph))(images(graph)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already"):
        loss.backward()


def test_evaluation_is_the_modules_own():
    graph = zoo.parse("effnet_cifar").build(resolution=16, classes=10)
    module = to_module(graph).eval()
    x = images(graph)
    assert torch.equal(accelerate(module)(x), module(x))


def test_moved_weights_are_noticed():
    """Loading, averaging or swapping weights may put other tensors in a parameter's place."""
    graph = zoo.parse("effnet_cifar").build(resolution=16, classes=10)
    module = to_module(graph)
    function, x = accelerate(module), images(graph)
    function(x).sum().backward()
    for parameter in module.parameters():
        parameter.data = parameter.data * 1.5
    with_statistics = copy.deepcopy(module)
    torch.testing.assert_close(function(x), with_statistics(x), rtol=1e-4, atol=1e-4)


def test_memory_is_used_again():
    graph = zoo.parse("mobilenet_v1:width=0.25,small_input=true").build(resolution=32, classes=10)
    module = to_module(graph)
    function, x = accelerate(module), images(graph, 16)
    peaks = []
    for _ in range(3):
        function(x).sum().backward()
        with open("/proc/self/statm") as file:  # noqa: PTH123
            peaks.append(int(file.read().split()[1]))
    assert all(after - before < 256 for before, after in pairwise(peaks[1:])), peaks  # pages: 1 MB


def test_a_nan_is_not_hidden():
    graph = zoo.parse("mobilenet_v1:width=0.25,small_input=true").build(resolution=16, classes=10)
    module = to_module(graph)
    x = images(graph)
    x[0, 0, 3, 3] = torch.nan
    assert accelerate(module)(x).isnan().all()


def test_denormal_numbers_are_zero(threads):
    """Values near 1e-40, made 1e38 times as large by the last layer: none are left. Torch's own threads keep them."""
    g = Builder(input=(16, 16, 3))
    x = g.conv(g.input, 16, kernel=3, bias=False, name="first")
    x = g.depthwise(x, kernel=3, bias=False, name="second")
    x = g.conv(x, 16, kernel=1, bias=False, name="third")
    module = to_module(g.graph(g.dense(g.global_pool(x), 2, name="last"), features=x, name="faint"))
    for name, scale in (("first", 1e-20), ("second", 1e-20), ("third", 1), ("last", 1e38)):
        torch.nn.init.uniform_(module.get_submodule(name).weight, 0.1 * scale, scale)
    x = images(module.graph).abs().requires_grad_()
    bias = module.get_submodule("last").bias.expand(3, 2)
    plain, result = module(x), accelerate(module)(x)
    assert ((plain - bias).abs() > 0.1).all()
    assert torch.equal(result, bias)
    result.sum().backward()
    assert (torch.full((1 << 20,), 1e-40) * 0.5).count_nonzero() == 1 << 20


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    monkeypatch.setattr(native, "which", lambda name: None)
    with pytest.raises(CompileError, match=r"pip install ziglang, or install clang or gcc"):
        native._compiler()
