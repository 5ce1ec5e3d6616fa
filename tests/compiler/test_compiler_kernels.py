"""Every kernel of the compiler against the plain definition, over shapes that hypothesis draws.

By default a few of each, 45 s of one core. Hundreds of each, an hour:

    python -m pytest -m long tests/compiler/test_compiler_kernels.py

SMALLCNN_CACHE=folder keeps the compiled kernels from one run to the next.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from compiled_networks import check, compiled_for, end, noise
from smallcnn.compiler import link, space, targets
from smallcnn.compiler.estimate import Estimator
from smallcnn.engines import compiled
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Node
from smallcnn.ir.types import Grid

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid")
CHANNELS = st.integers(1, 70)
LONG = 100
BOTH = [6, pytest.param(3 * LONG, marks=pytest.mark.long)]


def sweep(strategy, count: int) -> None:
    """Checks networks that `strategy` draws: always the same few, or many that are new each time."""
    phases = (Phase.generate, Phase.shrink)

    @settings(
        max_examples=count, derandomize=count < LONG, phases=phases, database=None,
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(strategy, st.sampled_from([2, 1]))
    def run(network, threads):
        check(*network, planned_for=threads)

    run()


# --- one layer ------------------------------------------------------------------------------------------------------


@st.composite
def planes(draw):
    """(height, width) of up to 400 pixels: a pixel, lines, odd sizes."""
    length = draw(st.integers(1, 40))
    width = draw(st.integers(1, 400 // length))
    return (length, width) if draw(st.booleans()) else (width, length)


@st.composite
def windows(draw, plane, largest: int = 7, pool: bool = False):
    """Kernel, stride and padding that fit a plane; of a convolution the dilation, too."""
    kernel, stride = (tuple(draw(st.integers(1, most)) for _ in plane) for most in (largest, 3))
    dilation = (1, 1) if pool else tuple(draw(st.sampled_from([1, 1, 1, 2, 3, 6])) for _ in plane)
    sides = [st.integers(0, k - 1 if pool else max(3, step)) for k, step in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.tuples(side, side)) for side in sides)
    reach = [(k - 1) * step + 1 for k, step in zip(kernel, dilation, strict=True)]
    assume(all(size + sum(pad) >= high for size, high, pad in zip(plane, reach, padding, strict=True)))
    return {"kernel": kernel, "stride": stride, "padding": padding} | ({} if pool else {"dilation": dilation})


@st.composite
def side_by_side(draw, *layers: Callable[..., Node]):
    """Networks of each `layer(draw, builder, map)` and nothing else but what makes the map and reads the results."""
    g = Builder(input=(*draw(planes()), draw(st.sampled_from([1, 3]))))
    of_the_picture = draw(st.integers(0, 3)) == 0
    source = g.input if of_the_picture else g.conv(g.input, draw(CHANNELS), name="stem")
    results = []
    for layer in layers:
        x = layer(draw, g, source)
        if draw(st.booleans()):
            x = g.activation(x, draw(st.sampled_from(ACTIVATIONS)), slope=draw(st.sampled_from([0.1, 0.5, 2.0])))
        results.append(x)
    return end(g, *results)


def conv(draw, g, x):
    return g.conv(x, draw(CHANNELS), **draw(windows(x.shape[:2])))


def grouped_conv(draw, g, x):
    groups = draw(st.sampled_from([n for n in range(1, x.shape[2] + 1) if x.shape[2] % n == 0]))
    return g.conv(x, groups * draw(st.integers(1, 10)), groups=groups, **draw(windows(x.shape[:2], 3)))


def depthwise(draw, g, x):
    multiplier = draw(st.sampled_from([1, 1, 1, 2, 3]))
    return g.conv(x, x.shape[2] * multiplier, groups=x.shape[2], **draw(windows(x.shape[:2])))


def pointwise(draw, g, x):
    groups = draw(st.sampled_from([1, 1] + [n for n in range(2, x.shape[2] + 1) if x.shape[2] % n == 0]))
    return g.conv(x, groups * draw(st.integers(1, max(1, 140 // groups))), groups=groups, bias=draw(st.booleans()))


def max_pool(draw, g, x):
    return g.max_pool(x, **draw(windows(x.shape[:2], pool=True)))


def average_pool(draw, g, x):
    return g.average_pool(x, count_padding=draw(st.booleans()), **draw(windows(x.shape[:2], pool=True)))


def global_pool(draw, g, x):
    return g.global_pool(x)


def dense(draw, g, x):
    x = g.dense(g.flatten(x), draw(CHANNELS), bias=draw(st.booleans()))
    return g.dense(x, draw(CHANNELS))


def local_response_norm(draw, g, x):
    size, beta = (
        draw(st.sampled_from([1, 3, 5, 7, 41, 2 * x.shape[2] - 1])),
        draw(st.sampled_from([0.5, 0.75, 1.0, 2.0])),
    )
    return g.local_response_norm(x, size=size, alpha=draw(st.floats(1e-4, 2)), beta=beta, bias=draw(st.floats(0.5, 2)))


def pad(draw, g, x):
    margins = tuple(draw(st.tuples(*[st.integers(-3, 3)] * 2)) for _ in range(2))
    assume(all(size + sum(min(side, 0) for side in m) > 0 for size, m in zip(x.shape, margins, strict=False)))
    return g.pad(x, margins)


def resize(draw, g, x):
    """Nearest and bilinear, to a smaller, an equal or a larger plane."""
    coordinates = draw(st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]))
    rounding = draw(st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]))
    mode, (height, width) = draw(st.sampled_from(["nearest", "bilinear"])), draw(planes())
    return g.resize(x, height, width, mode=mode, coordinates=coordinates, rounding=rounding)


def slopes(draw, g, x):
    return g.prelu(draw(st.sampled_from([lambda x: x, lambda x: g.conv(x, 21)]))(x))


def difference(draw, g, x):
    """A convolution less its input, or its input less the convolution; then e to the power of it, bounded."""
    y = g.conv(x, x.shape[2], groups=draw(st.sampled_from([1, x.shape[2]])), kernel=3)
    return g.exp(g.clip(g.sub(*draw(st.permutations([x, y]))), -3, 3))


def batch_norm(draw, g, x):
    return g.batch_norm(g.activation(x, "relu"))


def clip(draw, g, x):
    low = draw(st.floats(-2, 2))
    return g.clip(x, low, low + draw(st.floats(0.1, 4)))


LAYERS = (
    conv, grouped_conv, depthwise, pointwise, max_pool, average_pool, global_pool, dense,
    local_response_norm, pad, resize, slopes, difference, batch_norm, clip,
)  # fmt: skip


def test_layers():
    sweep(side_by_side(*LAYERS), 4)


@pytest.mark.long
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_layer(layer):
    sweep(side_by_side(layer), LONG)


# --- blocks, which may be fused -------------------------------------------------------------------------------------


@st.composite
def blocks(draw):
    """Separable layers and inverted residuals on planes small and large."""
    height, width = draw(st.sampled_from([(11, 10), (57, 43), (14, 14), (3, 130), (101, 37), (33, 64), (230, 2)]))
    g = Builder(input=(height, width, 3))
    narrow = draw(st.integers(1, 24))
    x = g.conv(g.input, narrow, kernel=draw(st.sampled_from([1, 3])), name="stem")
    wide = -(-draw(st.sampled_from([1_000, 30_000, 160_000])) // (height * width))
    wide = min(max(wide, draw(st.integers(1, 30))), 200)
    step = x
    if expanded := draw(st.booleans()):
        step = _act(draw, g, g.conv(step, wide, bias=draw(st.booleans()), name="expand"))
    kernel, stride = draw(st.sampled_from([3, 5, (3, 1), (1, 3), 2])), draw(st.sampled_from([1, 1, 2, (2, 1)]))
    padding = draw(st.sampled_from(["same", 1, ((0, 1), (2, 0))]))
    assume(padding == "same" or kernel != 5 or min(height, width) > 3)
    tapped = _act(draw, g, g.depthwise(step, kernel=kernel, stride=stride, padding=padding, name="depthwise"))
    y = g.conv(tapped, draw(st.sampled_from([narrow, 1, 12, 37])), name="project")
    others = []
    if y.shape == x.shape and draw(st.booleans()):
        y = g.add(y, x, name="sum") if draw(st.booleans()) else g.add(x, y, name="sum")
    y = _act(draw, g, y)
    for shared in (x, step, tapped):  # read by something else too
        if draw(st.integers(0, 5)) == 0:
            others.append(draw(st.sampled_from([g.flatten, g.global_pool, lambda x: g.conv(x, 8)]))(shared))
    return end(g, y, *others) if expanded or not others else end(g, *others, y)


def _act(draw, g, x):
    which = draw(st.sampled_from(["", "relu", "relu6", "hard_swish", "relu then batch norm then clip"]))
    if which in ACTIVATIONS:
        return g.activation(x, which)
    return g.clip(g.batch_norm(g.activation(x, "relu")), -0.5, 2.0) if which else x


@pytest.mark.parametrize("count", BOTH)
def test_block(count):
    sweep(blocks(), count)


@st.composite
def chains(draw):
    """Depthwise and pointwise layers behind each other on large maps, from the image on."""
    height, width = draw(st.sampled_from([(113, 91), (97, 160), (150, 71)]))
    g = Builder(input=(height, width, 3))
    stride = draw(st.sampled_from([1, 1, 2, (2, 1)]))
    x = g.conv(g.input, draw(st.sampled_from([32, 19, 7])), kernel=draw(st.sampled_from([3, 1, 5])), stride=stride)
    seen = [x := _act(draw, g, x)]
    for _ in range(draw(st.integers(1, 4))):
        wide = draw(st.sampled_from([40, 17, 9]))
        if draw(st.booleans()):
            kernel, stride = draw(st.sampled_from([3, 5, (1, 3)])), draw(st.sampled_from([1, 1, 2]))
            dilation = draw(st.sampled_from([1, 1, 2, (1, 3), (4, 1)]))
            y = g.conv(x, x.shape[2], groups=x.shape[2], kernel=kernel, stride=stride, dilation=dilation)
        else:
            y = g.conv(x, x.shape[2] if draw(st.booleans()) else wide)
        if y.shape == x.shape and draw(st.booleans()):
            y = g.add(*draw(st.permutations([x, y])))
        seen.append(x := _act(draw, g, y))
    others = [g.global_pool(draw(st.sampled_from(seen)))] if draw(st.integers(0, 2)) == 0 else []
    return end(g, g.conv(g.depthwise(x, kernel=3), 4), *others)


@pytest.mark.parametrize("count", [2, pytest.param(LONG, marks=pytest.mark.long)])
def test_chain(count):
    sweep(chains(), count)


@st.composite
def pooled(draw):
    """A convolution of the image or a depthwise one, a pool, and what may join them: odd sizes, any window."""
    height, width = draw(st.sampled_from([(37, 29), (16, 16), (9, 40), (61, 5), (23, 56)]))
    g = Builder(input=(height, width, draw(st.sampled_from([3, 1]))))
    channels = draw(st.sampled_from([24, 7, 40]))
    x = g.conv(g.input, channels, **draw(windows(g.input.shape[:2])))
    if draw(st.integers(0, 2)) == 0:
        x = g.depthwise(g.conv(g.activation(x, "relu"), channels), kernel=draw(st.sampled_from([3, (1, 3)])))
    seen = [x := _act(draw, g, x)]
    seen.append(x := draw(st.sampled_from([max_pool, average_pool]))(draw, g, x))
    for _ in range(draw(st.integers(0, 2))):
        step = draw(st.sampled_from([depthwise, max_pool, lambda draw, g, x: g.conv(x, 12)]))
        seen.append(x := _act(draw, g, step(draw, g, x)))
    others = [g.global_pool(draw(st.sampled_from(seen)))] if draw(st.integers(0, 2)) == 0 else []
    return end(g, x, *others)


@pytest.mark.parametrize("count", BOTH)
def test_pool_within_a_chain(count):
    sweep(pooled(), count)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", ["pool", "pointwise", "depthwise"])
def test_stem_and_pool_are_one_kernel(after, threads, monkeypatch):
    """SqueezeNet's and ShuffleNet's first layers, and what may follow."""
    g = Builder(input=(45, 61, 3))
    x = g.max_pool(g.activation(g.conv(g.input, 24, kernel=3, stride=2), "relu"), kernel=3, stride=2, padding=1)
    if after == "pointwise":
        x = g.activation(g.conv(x, 16), "relu")
    elif after == "depthwise":
        x = g.activation(g.depthwise(x, kernel=3), "relu6")
    graph, parts = end(g, x)
    monkeypatch.setattr(Estimator, "kernel", lambda *_: 1.0)  # the fewest kernels win
    made = compiled_for("host", graph, threads=threads)
    assert [kind for call in made.plan if (kind := type(call.spec).__name__) != "Gather"] == ["Chain"]
    check(graph, parts, planned_for=threads)


@pytest.mark.parametrize("kernel", [3, (2, 5)])
@pytest.mark.parametrize("after", [False, True])
def test_depthwise_in_blocks_of_lanes(kernel, after, monkeypatch):
    """A part of the lanes passes all rows first; alone, and before a pointwise layer."""
    monkeypatch.setattr(space, "_block", lambda layers, i, *_: 5 if layers[i].output.channels == 160 else 0)
    g = Builder(input=(11, 19, 3))
    x = g.depthwise(g.conv(g.input, 160), kernel=kernel)
    if after:
        x = g.conv(g.activation(x, "relu"), 20)
    graph, parts = end(g, g.depthwise(x, kernel=3, stride=2))
    made = compiled_for("host", graph, threads=1)
    assert any(tile.block for call in made.plan for tile in call.choice.tiles)
    check(graph, parts, planned_for=1)


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, LONG))])
def test_forms_at_random(seed, monkeypatch):
    """Whatever the estimate says, the answer is the same: here it is a number drawn for each form."""
    drawn = np.random.default_rng(seed)
    for estimate in ("kernel", "stage"):
        monkeypatch.setattr(Estimator, estimate, lambda *_: float(drawn.random()))
    (height, width), apart = drawn.integers(9, 40, 2), (int(drawn.integers(1, 4)), int(drawn.integers(1, 4)))
    g = Builder(input=(int(height), int(width), 3))
    x = g.activation(g.conv(g.input, 20, kernel=3, stride=2, padding=1), "relu6")
    x = g.activation(g.depthwise(x, kernel=3), "relu6")
    x = block = g.conv(x, 24)
    x = g.conv(g.activation(g.conv(x, 70), "relu"), 70, groups=70, kernel=5, dilation=apart)
    x = g.activation(x, "hard_swish")
    x = g.add(g.conv(x, 24), block)
    x = g.activation(g.conv(x, 44, kernel=3, padding=int(drawn.integers(0, 3))), "relu")
    x = g.activation(g.conv(x, 40, kernel=3, stride=2, groups=2, dilation=apart[::-1]), "relu")
    x = g.conv(g.shuffle(g.conv(x, 60, groups=4), 4), 36, groups=3)
    y = g.conv(g.max_pool(x, kernel=3, stride=2, padding=1), 33)
    check(*end(g, x, y, g.dense(g.flatten(y), 300)), planned_for=int(drawn.integers(1, 4)))


# --- anything that can be built -------------------------------------------------------------------------------------


@st.composite
def networks(draw):
    """A few random layers, each reading any earlier ones."""
    g = Builder(input=(draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.sampled_from([1, 3]))))
    nodes = [g.input]
    for _ in range(draw(st.integers(2, 7))):
        made = draw(st.sampled_from(STEPS))(draw, g, nodes)
        nodes += made if isinstance(made, list) else [made]
    read = {name for node in g._nodes.values() for name in node.inputs}
    return end(g, *[node for node in nodes if node.name not in read])


def pick(draw, nodes, fits=lambda node: True):
    """One of the nodes that fit, the later ones more often."""
    fitting = [node for node in nodes if fits(node)]
    return draw(st.sampled_from(fitting[-3:] + fitting))


def few(draw):
    return draw(st.sampled_from([1, 2, 3, 5, 8, 9, 16, 24]))


def any_conv(draw, g, nodes):
    x = pick(draw, nodes)
    groups = draw(st.sampled_from([1] + [n for n in range(1, x.shape[2] + 1) if x.shape[2] % n == 0]))
    kernel = draw(st.sampled_from([1, 1, 2, 3, (1, 3)]))
    return g.conv(x, groups * (few(draw) if groups < 4 else 2), kernel=kernel, groups=groups, bias=draw(st.booleans()))


def any_depthwise(draw, g, nodes):
    return g.depthwise(pick(draw, nodes), kernel=draw(st.sampled_from([1, 3, (3, 1)])), stride=draw(st.integers(1, 2)))


def any_pool(draw, g, nodes):
    pool = draw(st.sampled_from([g.max_pool, g.average_pool]))
    return pool(pick(draw, nodes), kernel=draw(st.integers(1, 3)), stride=draw(st.integers(1, 2)))


def any_elementwise(draw, g, nodes):
    x = pick(draw, nodes)
    which = draw(
        st.sampled_from([*ACTIVATIONS, g.batch_norm, lambda x: g.clip(x, -0.7, 1.1), lambda x: g.dropout(x, 0.5)])
    )
    return g.activation(x, which, slope=0.3) if isinstance(which, str) else which(x)


def any_sum(draw, g, nodes):
    x = pick(draw, nodes)
    others = [pick(draw, nodes, lambda node: node.shape == x.shape) for _ in range(draw(st.integers(1, 2)))]
    if set(others) == {x} and draw(st.booleans()):
        others = [draw(st.sampled_from([lambda x: g.conv(x, x.shape[2]), lambda x: g.depthwise(x, kernel=3)]))(x)]
    return g.add(*draw(st.permutations([x, *others])))


def any_join(draw, g, nodes):
    x = pick(draw, nodes)
    others = [pick(draw, nodes, lambda node: node.shape[:2] == x.shape[:2]) for _ in range(draw(st.integers(1, 2)))]
    return g.concat(x, *others)


def any_split(draw, g, nodes):
    x = pick(draw, nodes)
    at = draw(st.integers(1, x.shape[2]))
    return g.split(x, (at, x.shape[2] - at)) if at < x.shape[2] else g.split(x, (at,))


def any_part(draw, g, nodes):
    x = pick(draw, nodes)
    start = draw(st.integers(0, x.shape[2] - 1))
    return g._add(ops.Slice, (x,), None, start=start, stop=draw(st.integers(start + 1, x.shape[2])))


def any_shuffle(draw, g, nodes):
    x = pick(draw, nodes)
    return g.shuffle(x, draw(st.sampled_from([n for n in range(1, x.shape[2] + 1) if x.shape[2] % n == 0])))


def any_scale(draw, g, nodes):
    x = pick(draw, nodes)
    squeezed = g.global_pool(pick(draw, nodes))
    return g.scale(x, g.activation(g.dense(squeezed, x.shape[2]), draw(st.sampled_from(["sigmoid", "hard_sigmoid"]))))


def any_norm(draw, g, nodes):
    return g.local_response_norm(pick(draw, nodes), size=3, alpha=0.5, beta=0.75, bias=1.0)


def any_pad(draw, g, nodes):
    return g.pad(pick(draw, nodes), draw(st.sampled_from([((1, 1), (1, 1)), ((0, 2), (1, 0))])))


STEPS = (
    any_conv, any_conv, any_depthwise, any_depthwise, any_pool, any_elementwise, any_elementwise, any_sum, any_sum,
    any_join, any_join, any_split, any_part, any_shuffle, any_scale, any_norm, any_pad,
)  # fmt: skip


@pytest.mark.parametrize("count", BOTH)
def test_network(count):
    sweep(networks(), count)


# --- whole numbers ---------------------------------------------------------------------------------------------------


@st.composite
def stored_maps(draw):
    """A map on a grid, moved about by what may move bytes; its numbers, and the real ones they stand for, come out."""
    g = Builder(input=(*draw(planes()), 3))
    number = draw(st.sampled_from(["uint8", "int8"]))
    zero = draw(st.integers(0, 127))
    x = g.conv(g.input, draw(CHANNELS))
    x = g.quantize(x if draw(st.booleans()) else g.activation(x, "relu"), number, scale=0.01, zero=zero)
    for _ in range(draw(st.integers(0, 4))):
        x = draw(st.sampled_from([max_pool, pad, halves, shuffled, thrice]))(draw, g, x)
    real = g.dequantize(x)
    if draw(st.booleans()):
        real = g.activation(real, "relu")
    flat = g.flatten(x)
    outputs = {"stored": x, "flat": flat, "real": real, "of_flat": g.dequantize(flat)}
    return g.graph(outputs, features=x, name="stored"), None


def halves(draw, g, x):
    """The two halves the other way round, or one of them."""
    at = draw(st.integers(1, x.shape[2]))
    if at == x.shape[2]:
        return x
    first, second = g.split(x, (at, x.shape[2] - at))
    return g.concat(second, first)


def shuffled(draw, g, x):
    return g.shuffle(x, draw(st.sampled_from([n for n in range(1, x.shape[2] + 1) if x.shape[2] % n == 0])))


def thrice(draw, g, x):
    return g.concat(x, max_pool_of_one(g, x), x)


def max_pool_of_one(g, x):
    return g.max_pool(x, kernel=1, stride=1)


@pytest.mark.parametrize("count", BOTH)
def test_stored_map(count):
    sweep(stored_maps(), count)


def test_ties_go_to_the_even_neighbour_and_ranges_end(tmp_path):
    """Multiples of 1/64 in steps of 1/32: every second one lies between two. Python's round is to even, too."""
    g = Builder(input=(16, 16, 3))
    fine = g.quantize(g.input, "int8", scale=1 / 64, zero=5)
    coarse = g.quantize(g.dequantize(fine), "uint8", scale=1 / 32, zero=3)
    graph = g.graph({"fine": fine, "coarse": coarse}, features=fine, name="ties")
    path = tmp_path / f"ties{targets.host().suffixes[0]}"
    link.write(compiled_for("host", graph).program, path)
    got = compiled.load(path, 2).run(noise(graph))
    steps = got["fine"].astype(int).ravel() - 5
    assert got["coarse"].ravel().tolist() == [min(max(round(step / 2) + 3, 0), 255) for step in steps.tolist()]
    assert (steps % 2 == 1).sum() > 100
    assert got["fine"].max() == 127
    assert got["coarse"].min() == 0


def test_quantized_within_the_kernel_before():
    """Of a grouped convolution, a separable one, a chain, a mean, a fully connected layer; weights on grids."""
    g = Builder(input=(90, 90, 3))
    x = g.conv(g.input, 8, kernel=3, stride=1, name="stem")
    y = g.conv(g.depthwise(g.conv(x, 40), kernel=3), 12, number="int8", grid=Grid((0.01,), (0,)), name="project")
    grouped = g.conv(
        x, 12, groups=4, number="uint8", grid=Grid(tuple(0.01 + 0.001 * i for i in range(12)), (100,) * 12)
    )
    outputs = {
        "of_chain": g.quantize(y, "uint8", scale=0.05, zero=128),
        "of_groups": g.quantize(grouped, "int8", scale=0.03, zero=0),
        "of_mean": g.quantize(g.global_pool(x), "int8", scale=0.002, zero=-7),
        "of_dense": g.quantize(g.dense(g.global_pool(y), 300), "uint8", scale=0.01, zero=100),
    }
    check(g.graph(outputs, features=x, name="within"))


# --- where layers must not be fused, or share memory, though it looks as if they could ------------------------------


def channels_read_twice(g):
    x = g.conv(g.input, 8)
    twice = g.concat(x, x)
    yield g.depthwise(twice, kernel=3)
    yield g.batch_norm(twice)
    d = g.depthwise(x, kernel=3)
    yield g.conv(g.concat(d, d), 8)


def slices_off_a_vector(g):
    """The lanes of what is multiplied or added lie differently in their vectors."""
    x = g.conv(g.input, 22)
    first, middle, last = g.split(x, (3, 16, 3))
    other = g.conv(x, 16)
    yield g.scale(middle, g.dense(g.global_pool(x), 16))
    yield g.add(middle, other)
    yield g.add(g.conv(other, 16, kernel=3), middle)
    yield g.add(g.max_pool(other, kernel=3, stride=1), other, middle)
    yield g.concat(first, last)


def depthwise_read_by_two(g):
    d = g.depthwise(g.conv(g.input, 8), kernel=3)
    yield g.conv(d, 8)
    yield d


def joined_before_a_pointwise(g):
    x = g.conv(g.input, 16)
    yield g.conv(g.concat(g.depthwise(x, kernel=3), g.depthwise(x, kernel=5)), 8)


def affine_of_groups(g):
    x = g.activation(g.conv(g.conv(g.input, 16), 16, groups=2), "relu")
    yield g.batch_norm(x)
    x = g.activation(g.dense(g.global_pool(g.conv(g.input, 512)), 256), "relu")
    yield g.batch_norm(x)


def part_wider_than_its_channels(g):
    """Groups of two channels take a vector each."""
    x = g.conv(g.input, 16)
    a, b = (g.conv(x, 16, groups=8) for _ in range(2))
    whole = g._add(ops.Slice, (a,), None, start=0, stop=16)
    yield g.max_pool(g.concat(g.add(whole, b), g.conv(x, 8)), kernel=1, stride=1)


def lanes_that_nobody_writes(g):
    """Twice what was in memory, run after run, is infinite in the end, and infinity times 0 is not 0."""
    x = g.max_pool(g.add(g.input, g.input), kernel=1, stride=1)
    yield g.conv(g.depthwise(x, kernel=3), 8)
    yield g.depthwise(g.local_response_norm(g.conv(g.input, 5), size=3, alpha=1.0, beta=0.5, bias=1.0), kernel=3)


@pytest.mark.parametrize(
    "case",
    [
        channels_read_twice, slices_off_a_vector, depthwise_read_by_two, joined_before_a_pointwise, affine_of_groups,
        part_wider_than_its_channels, lanes_that_nobody_writes,
    ],
    ids=lambda case: case.__name__,
)  # fmt: skip
def test_case(case):
    g = Builder(input=(11, 12, 3))
    check(*end(g, *case(g)))


@pytest.mark.parametrize("part", ["a slice", "joined"])
def test_large_map_that_is_not_one_layers_alone(part):
    g = Builder(input=(90, 90, 3))
    x = g.conv(g.input, 8)
    if part == "joined":
        wide = g.concat(g.conv(x, 16), g.conv(x, 16))
    else:
        wide = g._add(ops.Slice, (g.conv(x, 32),), None, start=16, stop=32)
    check(*end(g, g.conv(g.depthwise(wide, kernel=3), 8)))


def test_with_tiles_that_were_timed():
    g = Builder(input=(11, 13, 3))
    x = g.conv(g.input, 12, kernel=3, stride=2)
    y = g.conv(g.depthwise(g.conv(x, 20), kernel=3), 12)
    check(*end(g, g.add(x, y)), tune=True)


def test_mean_of_one_colour():
    """50,000 equal numbers, one after the other into one float32, are 7e-4 off."""
    g = Builder(input=(224, 224, 3))
    white = np.full((1, 224, 224, 3), 255, np.uint8)
    check(*end(g, g.global_pool(g.input)), images=white)


def test_large_image_that_no_convolution_reads_first():
    """An image turned to floats by itself begins no chain."""
    g = Builder(input=(150, 150, 3))
    check(*end(g, g.conv(g.depthwise(g.input, kernel=3), 8)))
