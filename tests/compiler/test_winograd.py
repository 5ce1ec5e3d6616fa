"""3x3 convolutions by minimal filtering."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import correlate

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from test_compiler import IN_NODE, run_elsewhere
from test_compiler_bytes import layer, network

from compiled_networks import AnyTask, check, compiled_for, end, model_of
from networks import random_weights
from planned_networks import context_of, layers_of
from smallcnn.compiler import link, space, specs, targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.compiler.estimate import Estimator
from smallcnn.compiler.space import choices
from smallcnn.compiler.winograd import SIDES, transform
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.model.model import Model

SIZE = 3


@pytest.mark.parametrize("side", SIDES)
def test_a_tile_is_what_the_filter_gives(side):
    drawn = np.random.default_rng(0)
    of = transform(side)
    pixels, weight = drawn.standard_normal((of.size, of.size)), drawn.standard_normal((SIZE, SIZE)).astype(np.float32)
    got = of.outputs @ (of.filtered(weight) * (of.pixels @ pixels @ of.pixels.T)) @ of.outputs.T
    np.testing.assert_allclose(got, correlate(pixels, weight, "valid"), rtol=0, atol=1e-5)  # weights are float32


@pytest.mark.parametrize("side", SIDES)
def test_rounding_costs_little(side):
    """Of 256 channels after a ReLU, in float32, against float64: the error stays that of a plain sum, nearly."""
    drawn, of = np.random.default_rng(0), transform(side)
    pixels = np.maximum(drawn.standard_normal((50, 256, of.size, of.size)), 0).astype(np.float32)
    weight = drawn.standard_normal((256, SIZE, SIZE)).astype(np.float32) / 48
    want = sum(
        (pixels[:, :, i : i + side, j : j + side].astype(float) * weight[:, i, j, None, None]).sum(1)
        for i in range(SIZE)
        for j in range(SIZE)
    )
    outputs, matrix = of.outputs.astype(np.float32), of.pixels.astype(np.float32)
    products = of.filtered(weight) * (matrix @ pixels @ matrix.T)
    got = outputs @ np.cumsum(products, 1, dtype=np.float32)[:, -1] @ outputs.T
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 5e-6 * np.abs(want).max()


def forced(monkeypatch, side, pixels=4, vectors=2, tiles=1):
    """Makes the plan compute every 3x3 convolution in strips of `tiles` rows of tiles."""

    def tile(layer, rows, context):
        wide = min(vectors, layer.lanes(context.vector) // context.vector)
        return [specs.Tile(pixels, wide, 1, ahead=True, side=side)] if rows == side * tiles else []

    monkeypatch.setattr(space, "_tile_rows", lambda layers, *_: [side * tiles] if layers[0].small_filters else [])
    monkeypatch.setattr(space, "_minimal_tiles", tile)
    stage, kernel = Estimator.stage, Estimator.kernel

    def quickest(self, layers, i, tile, rows, shares=1):
        return 0.0 if tile.side else stage(self, layers, i, tile, rows, shares)

    def quick(self, layers, choice):
        return 0.0 if choice.tiles and choice.tiles[0].side else kernel(self, layers, choice)

    monkeypatch.setattr(Estimator, "stage", quickest)
    monkeypatch.setattr(Estimator, "kernel", quick)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("plane", "channels", "padding", "side", "tiles"),
    [
        ((13, 13), (24, 33), 1, 4, 1),
        ((9, 22), (35, 17), 1, 4, 2),
        ((5, 7), (20, 70), 0, 2, 1),
        ((8, 3), (16, 17), ((0, 2), (2, 1)), 2, 9),  # more rows than there are
        ((1, 30), (64, 16), 1, 4, 1),
        ((3, 3), (17, 16), 0, 4, 1),
    ],
)
def test_outputs_are_the_definitions(plane, channels, padding, side, tiles, threads, monkeypatch):
    """Odd maps, borders of either side, lanes that are left over."""
    forced(monkeypatch, side, tiles=tiles)
    g = Builder(input=(*plane, 3))
    x = g.activation(g.conv(g.input, channels[0]), "relu")
    x = g.conv(x, channels[1], kernel=3, padding=padding)
    graph, parts = end(g, g.activation(x, "leaky_relu"), g.conv(x, 30, kernel=3, padding=2))
    made = compiled_for("host", graph, threads=threads)
    assert [call.spec.tile.side for call in made.plan if isinstance(call.spec, specs.Winograd)] == [side] * 2
    check(graph, parts, planned_for=threads)


def test_a_sum_follows(monkeypatch):
    forced(monkeypatch, 4, pixels=3, vectors=3, tiles=2)
    g = Builder(input=(15, 18, 3))
    x = g.activation(g.conv(g.input, 40), "relu")
    y = g.conv(g.activation(g.conv(x, 56, kernel=3, padding=1), "relu"), 40, kernel=3, padding=1)
    graph, parts = end(g, g.activation(g.add(y, x), "relu"))
    check(graph, parts)


def test_a_number_far_above_its_neighbours_is_compiled_without(tmp_path, capsys):
    """Each output of a tile is a sum of all its numbers, so a large one's rounding is in those too that do not read it;
    bounded outputs show it."""
    g = Builder(input=(28, 28, 3))
    x = g.activation(g.conv(g.input, 64), "relu")
    x = g.activation(g.conv(x, 64, kernel=3, padding=1), "relu6")
    graph, _ = end(g, g.max_pool(x, kernel=4, stride=4, padding=0))
    model = model_of(graph)
    weights = dict(model.weights)
    weights["conv1.bias"] = np.ones(64, np.float32)
    weights["conv1.weight"][0], weights["conv1.bias"][0] = np.array([5e9, 0, 0])[:, None, None], -4.9e9  # at white
    model = replace(model, weights=weights, preprocessing=Preprocessing((28, 28), (0.0,) * 3, (1.0,) * 3))
    made = compile_file(model, tmp_path / "one.so", threads=1)
    assert not any(isinstance(call.spec, specs.Winograd) for call in made.plan)
    assert made.error < 1e-5
    assert "with fast 3x3 convolutions" in capsys.readouterr().err


def large_block():
    g = Builder(input=(56, 56, 3))
    x = g.activation(g.conv(g.input, 64), "relu")
    return end(g, g.global_pool(g.conv(x, 64, kernel=3, padding=1)))[0]


def test_the_plan_takes_it_where_it_is_quicker():
    made = compiled_for("x86-64-linux-avx2", large_block())
    (call,) = (call for call in made.plan if isinstance(call.spec, specs.Winograd))
    assert call.choice.tiles[0].side == max(SIDES)  # 2.25 multiplications for each output; side 2 takes 4


def test_a_compact_file_holds_no_more_weights_than_the_network():
    graph = large_block()
    fast, compact = (compiled_for("x86-64-linux-avx2", graph, compact=one) for one in (False, True))
    assert not any(isinstance(call.spec, specs.Winograd) for call in compact.plan)
    own = 4 * sum(weight.size for weight in model_of(graph).weights.values())
    assert len(compact.program.weights) < 1.05 * own
    assert len(fast.program.weights) > 3.5 * own


@pytest.mark.parametrize("other", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel": 5}])
def test_other_convolutions_are_sums_of_products(other):
    g = Builder(input=(40, 40, 3))
    graph, _ = end(g, g.conv(g.conv(g.input, 64), 64, **{"kernel": 3, "padding": 2} | other))
    context = context_of(graph)
    layers = layers_of(graph, context)
    assert not any(choice.tiles[0].side for layer in layers[1:2] for choice in choices([layer], context, 1))


@pytest.mark.parametrize("target", ["arm-64-linux", "wasm"])
def test_only_where_weights_are_fetched_in_time(target):
    """Elsewhere it was not measured."""
    context = context_of(large_block(), target)
    layer = layers_of(large_block(), context)[1]
    assert not any(choice.tiles[0].side for choice in choices([layer], context, 1))


LEVELS = [f"x86-64-linux-{level}" for level in ("sse41", "avx2", "avx512")]
"""Levels of x86-64 that multiply bytes as 16 bits."""


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize(
    ("plane", "channels", "padding", "asymmetric", "tiles"),
    [
        ((13, 13), (24, 33), 1, False, 7),
        ((9, 22), (35, 17), 1, True, 2),
        ((5, 7), (16, 20), 0, False, 1),
        ((8, 3), (23, 17), ((0, 2), (2, 1)), True, 9),
    ],
)
def test_bytes_are_the_definitions(plane, channels, padding, asymmetric, tiles, target, monkeypatch):
    """Bit for bit; borders hold the byte that stands for 0."""
    if not targets.runs_here(targets.parse(target)):
        pytest.skip("the level is not of this machine")
    forced(monkeypatch, min(SIDES), tiles=tiles)
    filtered = {"kernel": 3, "padding": padding, "asymmetric": asymmetric}
    layers = [{"out": channels[0], "zero": 77}, {"out": channels[1], "zero": 9} | filtered, {"out": 30} | filtered]
    graph = network((*plane, 3), *layers)
    made = compiled_for(target, graph)
    assert [call.spec.tile.side for call in made.plan if isinstance(call.spec, specs.Winograd)] == [min(SIDES)] * 2
    check(graph, target=target)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("number", "least", "largest", "most"), [("int8", -127, 127, 1824), ("uint8", 0, 255, 912)], ids=["int8", "uint8"]
)
def test_the_largest_bytes_and_weights_do_not_overflow(number, least, largest, most, level, monkeypatch):
    """All bytes 255, all weights of a filter the least or the largest, as many channels as are allowed, and no more."""
    if not targets.runs_here(targets.parse(level)):
        pytest.skip("the level is not of this machine")
    forced(monkeypatch, min(SIDES))
    for channels, allowed in ((most, True), (most + 16, False)):
        g = Builder(input=(4, 4, 3))
        x = layer(g, g.quantize(g.input, "uint8", scale=0.02, zero=0), channels, scale=1e-6)
        x = g.conv(x, 16, kernel=3, padding=1, number=number, grid=Grid((0.01,) * 16, (0,) * 16))
        graph = g.graph({"codes": g.quantize(x, "uint8", scale=1e-3, zero=0)}, features=x, name="large")
        weights = random_weights(graph)
        filters = np.where(np.arange(16) % 2, least, largest).astype(number)
        weights["conv2.weight"] = np.broadcast_to(filters[:, None, None, None], (16, channels, 3, 3)).copy()
        weights["conv1.bias"] = np.full(channels, 2**20, np.int32)
        model = Model(graph, weights, AnyTask(), Preprocessing((4, 4)))
        made = compiled_for(level, model)
        assert any(isinstance(call.spec, specs.Winograd) for call in made.plan) is allowed
        check(model, target=level)


def test_bytes_take_no_more_weights():
    graph = network((30, 30, 3), {"out": 64}, {"out": 64, "kernel": 3})
    made = compiled_for("x86-64-linux-avx2", graph)
    (call,) = (call for call in made.plan if isinstance(call.spec, specs.Winograd))
    assert call.choice.tiles[0].side == min(SIDES)
    assert len(made.program.weights) < 1.1 * 64 * 64 * 9 + 20_000  # names, biases, scales and the answer


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_bytes_in_a_browser(tmp_path, monkeypatch):
    forced(monkeypatch, min(SIDES), tiles=3)
    graph = network((13, 15, 3), {"out": 24, "zero": 77}, {"out": 33, "kernel": 3, "padding": 1})
    made = compiled_for("wasm", graph)
    assert any(isinstance(call.spec, specs.Winograd) for call in made.plan)
    link.write(made.program, tmp_path / "net.wasm", prefix="net")
    run_elsewhere(["node", "-e", IN_NODE], tmp_path, graph)


def test_where_a_machine_multiplies_bytes_they_are_summed_up():
    graph = network((30, 30, 3), {"out": 64}, {"out": 64, "kernel": 3})
    made = compiled_for("x86-64-linux-vnni", graph)
    assert not any(isinstance(call.spec, specs.Winograd) for call in made.plan)
