"""Quantized networks, compiled: bit for bit the definition, whatever the shape, the plan and the number of threads."""

import random

import numpy as np
import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from compiled_networks import AnyTask, check, compiled_for, model_of
from networks import every_integer, every_result, random_weights, resized_bytes
from quantized_networks import on_noise
from smallcnn.compiler import targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.compiler.whole import image_affine, image_table
from smallcnn.errors import CompileError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.types import Grid
from smallcnn.model.model import Model
from zoo_models import build


def test_every_integer_operator_layer_by_layer():
    check(every_result(every_integer()))


def test_resized_bytes():
    check(every_result(resized_bytes()))
    check(resized_bytes())


def layer(
    g: Builder, x: Node, out: int, *, scale: float = 0.05, zero: int = 0, asymmetric: bool = False, **how
) -> Node:
    """A convolution of bytes, and its quantize."""
    grid = Grid((0.01,), (119,)) if asymmetric else Grid(tuple(0.006 + 0.001 * (i % 7) for i in range(out)), (0,) * out)
    y = g.conv(x, out, number="uint8" if asymmetric else "int8", grid=grid, **how)
    return g.quantize(y, "uint8", scale=scale, zero=zero)


def network(size: tuple[int, int, int], *layers: dict, zero: int = 121) -> Graph:
    """Layers one after the other; the answer is the last map."""
    g = Builder(input=size)
    x = g.quantize(g.input, "uint8", scale=0.02, zero=zero)
    for options in layers:
        depthwise = {"out": x.shape[2], "groups": x.shape[2]} if options.get("groups") == "all" else {}
        x = layer(g, x, **options | depthwise)
    return g.graph({"codes": x}, features=x, name="bytes")


CASES = {
    "one pixel": ((1, 1, 3), {"out": 5}, {"out": 7}),
    "channels not in fours": ((5, 7, 3), {"out": 10, "kernel": 3}, {"out": 9}, {"out": 6, "kernel": (3, 2)}),
    "grey": ((9, 8, 1), {"out": 8, "kernel": 5, "stride": 2}, {"out": 4}),
    "groups": ((6, 7, 3), {"out": 20, "kernel": 3}, {"out": 40, "groups": 4}, {"out": 12, "groups": 2, "kernel": 3}),
    "groups, read in place": ((60, 61, 3), {"out": 64}, {"out": 128, "groups": 4, "stride": 2}),
    "depthwise, tall and wide": (
        (11, 9, 3), {"out": 24}, {"groups": "all", "kernel": (5, 3)}, {"groups": "all", "kernel": (2, 5), "stride": 2},
        {"groups": "all", "kernel": (7, 1), "zero": 77},
    ),
    "inverted residual": (
        (12, 14, 3), {"out": 8, "kernel": 3, "stride": 2}, {"out": 48}, {"groups": "all", "kernel": 3},
        {"out": 8, "zero": 99}, {"out": 48}, {"groups": "all", "kernel": 3, "stride": 2}, {"out": 16, "zero": 101},
    ),
    "separable": (
        (17, 15, 3), {"out": 16, "kernel": 3, "stride": 2}, {"groups": "all", "kernel": 3}, {"out": 40},
        {"groups": "all", "kernel": 3, "stride": 2}, {"out": 72}, {"groups": "all", "kernel": 3}, {"out": 33},
    ),
    "dilated": (
        (13, 12, 3), {"out": 20, "kernel": 3, "dilation": (1, 2)}, {"out": 9, "kernel": 3, "dilation": 3, "zero": 50},
        {"groups": "all", "kernel": (5, 3), "dilation": (2, 4)}, {"out": 10, "kernel": (1, 4), "dilation": (3, 2)},
        {"out": 6, "groups": 2, "kernel": 3, "stride": 2, "dilation": 6, "zero": 140},
    ),
    "asymmetric weights": (
        (9, 8, 3), {"out": 10, "kernel": 3, "asymmetric": True}, {"groups": "all", "kernel": 3, "asymmetric": True},
        {"out": 21, "asymmetric": True, "zero": 128},
    ),
    "steps beyond 2**22": ((5, 5, 3), {"out": 8, "scale": 1e-9, "zero": 128}, {"out": 8, "scale": 1e-8}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers_of_bytes(case):
    size, *layers = CASES[case]
    check(every_result(network(size, *layers)), planned_for=1)
    check(network(size, *layers))  # fused, as its inner results are no outputs


@pytest.mark.parametrize("level", ["sse41", "avx2"])
def test_levels_that_widen_bytes(level):
    """Of a tile of 5,000 terms there are too many for the stack; of a table of channels as many as there are lanes."""
    target = next(name for name in targets.names() if name.endswith(f"linux-{level}"))
    if not targets.runs_here(targets.parse(target)):
        pytest.skip(f"no {level} here")
    check(network((9, 8, 3), {"out": 200}, {"out": 12, "kernel": 5}), target=target)
    g = Builder(input=(6, 5, 3))
    x = layer(g, g.quantize(g.input, "uint8", scale=0.02, zero=121), 16)
    y = layer(g, g.shuffle(x, groups=4), 8, groups=4)
    graph = g.graph({"codes": y}, features=y, name="shuffled")
    check(Model(graph, random_weights(graph), AnyTask(), Preprocessing((6, 5))), target=target)


@pytest.mark.parametrize("seed", range(4))
def test_layers_at_random(seed):
    rng = random.Random(seed)
    layers = [{"out": rng.randint(1, 40), "kernel": rng.choice([1, 3]), "stride": rng.choice([1, 2])}]
    for _ in range(rng.randint(2, 5)):
        kernel = (rng.choice([1, 2, 3, 5]), rng.choice([1, 3, 4]))
        groups = rng.choice([{}, {}, {"groups": "all"}])
        out = {} if groups else {"out": rng.randint(1, 70)}
        pointwise = {"kernel": 1} if out and rng.random() < 0.6 else {"kernel": kernel, "stride": rng.choice([1, 1, 2])}
        layers.append(out | groups | pointwise | {"zero": rng.choice([0, 0, rng.randint(0, 255)])})
    check(network((rng.randint(1, 30), rng.randint(1, 30), 3), *layers))


@pytest.mark.parametrize(
    "text",
    [
        "mobilenet_v2:width=0.35",
        "shufflenet_v1:scale=0.25",
        "shufflenet_v2:scale=0.5",
        "mobilenet_v3_small",
        "effnet_cifar",
    ],
)
def test_quantized_network(text):
    model = on_noise(text, 64)
    check(model)


@pytest.mark.parametrize("zero", [0, 13, 200])
def test_hard_swish_is_arithmetic_where_that_gives_its_table(zero):
    """Every byte of two maps, one wide and one narrow; other curves are looked up."""
    g = Builder(input=(16, 16, 3))
    x = g.quantize(g.input, "uint8", scale=0.02, zero=121)
    outputs = {}
    for scale in (0.04, 0.003):
        wide = layer(g, x, 24, scale=scale, zero=zero)
        for curve in ("hard_swish", "hard_sigmoid"):
            y = g.quantize(g.activation(wide, curve), "uint8", scale=0.6 * scale, zero=7)
            outputs[f"{curve}{scale}"] = y
    graph = g.graph(outputs, features=y, name="curves")
    made = compiled_for("host", graph)
    kinds = [step.kind for call in made.plan if hasattr(call.spec, "sink") for step in call.spec.sink.epilogue]
    assert kinds.count("swish") == kinds.count("table") == 2
    check(graph)


@pytest.mark.parametrize("zero", [121, 128])
def test_pixels_halfway_between_two_bytes(zero):
    """On this grid many pixels are halfway, where a fused multiply-add would round others up."""
    g = Builder(input=(16, 16, 3))
    x = g.quantize(g.input, "uint8", scale=2 / 255, zero=zero)
    outputs = {"one": layer(g, x, 24, scale=0.04), "other": layer(g, x, 24, scale=0.003, kernel=3)}
    check(g.graph(outputs, features=outputs["other"], name="halfway"))


def test_bytes_added_to_windows():
    """The other bytes are read as bytes by kernels of windows, too."""
    g = Builder(input=(9, 11, 3))
    x = layer(g, g.quantize(g.input, "uint8", scale=0.02, zero=121), 20, kernel=3, zero=90)
    filtered = g.quantize(g.add(layer(g, x, 20, groups=20, kernel=3, zero=70), x), "uint8", scale=0.07, zero=80)
    mean = g.quantize(g.average_pool(filtered, kernel=3, stride=1, padding=1), "uint8", scale=0.06, zero=75)
    most = g.max_pool(filtered, kernel=3, stride=1, padding=1)
    y = g.quantize(g.add(mean, filtered), "uint8", scale=0.11, zero=100)
    z = g.quantize(g.add(most, y), "uint8", scale=0.13, zero=110)
    graph = g.graph({"mean": y, "most": z}, features=z, name="added")
    check(Model(graph, random_weights(graph), AnyTask(), Preprocessing((9, 11))))


def test_where_bytes_lie_between_two_steps_a_table_takes_the_place_of_scale_and_shift():
    scale, shift = np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32)
    usual, between = Grid((0.0193,), (113,)), Grid((1 / 127.5,), (128,))
    assert image_affine(image_table(usual, scale, shift), usual, scale, shift) is not None
    assert image_affine(image_table(between, scale, shift), between, scale, shift) is None
    g = Builder(input=(9, 11, 3))
    x = g.quantize(g.input, "uint8", scale=1 / 127.5, zero=128)
    y = layer(g, x, 8, kernel=3, stride=2)
    z = layer(g, layer(g, y, 8, groups=8, kernel=3), 12)
    graph = g.graph({"codes": z}, features=z, name="between")
    check(Model(graph, random_weights(graph), AnyTask(), Preprocessing((9, 11))))


def test_int8_between_layers_is_refused(tmp_path):
    g = Builder(input=(4, 4, 3))
    x = g.quantize(g.input, "int8", scale=0.02, zero=3, name="codes")
    y = g.conv(x, 4, number="int8", grid=Grid((0.1,), (0,)), name="first")
    y = g.quantize(y, "uint8", scale=0.1, zero=0)
    model = model_of(g.graph({"codes": y}, features=y, name="signed"))
    with pytest.raises(CompileError, match=r"^\w+: the compiler computes with uint8 between layers, not int8"):
        compile_file(model, tmp_path / "signed.so")


def test_int8_is_smaller(tmp_path):
    """The weights take a quarter of the bytes, and the maps, too."""
    graph = build("mobilenet_v2:width=0.35", resolution=64)
    sizes = []
    for model in (model_of(graph), on_noise("mobilenet_v2:width=0.35", 64)):
        made = compile_file(model, tmp_path / "network.so").program
        sizes.append((len(made.weights), made.arena_bytes))
    (weights, arena), (weights8, arena8) = sizes
    assert weights8 < 0.3 * weights
    assert arena8 < 0.4 * arena
