"""Noise, summed batch by batch; results held as bytes; and how much memory quantizing takes."""

import tracemalloc
from math import inf, log10

import numpy as np
import pytest

from artifacts import artifact
from networks import images
from smallcnn.engines.operators import Operators
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.transform.quantize import Settings, quantize
from smallcnn.transform.quantize.noise import Noise
from smallcnn.transform.quantize.values import Bytes, batches, to_bytes

rng = np.random.default_rng(0)
EXACT = rng.normal(1, 2, (21, 4, 3, 5)).astype(np.float32)
NEAR = (EXACT + rng.normal([0.1, 0, 0, 0.3, -0.2], 0.05, EXACT.shape)).astype(np.float32)


def summed(exact, near) -> Noise:
    noise = Noise()
    for some in batches(len(exact)):
        noise.add(exact[some], near[some])
    return noise


def test_noise_is_that_of_the_whole():
    noise = summed(EXACT, NEAR)
    difference = EXACT.astype(np.float64) - NEAR
    signal = (EXACT.astype(np.float64) ** 2).mean()
    np.testing.assert_allclose(noise.mean, difference.mean((0, 1, 2)), rtol=1e-5)
    assert noise.snr() == pytest.approx(10 * log10(signal / (difference**2).mean()), abs=1e-4)
    centred = difference - difference.mean((0, 1, 2))
    assert noise.snr(around_mean=True) == pytest.approx(10 * log10(signal / (centred**2).mean()), abs=1e-4)


def test_no_noise_and_no_signal():
    assert summed(EXACT, EXACT).snr() == inf
    assert summed(np.zeros_like(EXACT), EXACT).snr() == -inf


def test_bytes_are_the_nearest_on_their_grid():
    grid = Grid((0.05,), (7,))
    values = np.array([[-1, -0.35, 0, 0.024, 0.026, 0.075, 0.125, 12.4, 99]], np.float32)
    held = Bytes(to_bytes(values, grid), grid)
    assert held.stored.tolist() == [[0, 0, 7, 7, 8, 9, 9, 255, 255]]  # 1.5 and 2.5 are ties
    np.testing.assert_allclose(held[:], [[-0.35, -0.35, 0, 0, 0.05, 0.1, 0.1, 12.4, 12.4]], rtol=1e-6)
    assert held[:].dtype == np.float32
    np.testing.assert_array_equal(to_bytes(held[:], grid), held.stored)


def test_quantizing_holds_few_results_at_once():
    """Of the largest result two in float32, its bytes, and little more: one batch, windows of one layer."""
    g = Builder(input=(96, 96, 3))
    x = g.activation(g.conv(g.input, 32, kernel=1, name="expand"), "relu6", name="expanded")
    x = g.activation(g.conv(x, 32, kernel=3, padding=1, groups=32, name="depthwise"), "relu6", name="filtered")
    x = g.conv(x, 8, kernel=1, name="project")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="wide")
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), np.uint8)
    largest = 40 * 96 * 96 * 32 * 4
    tracemalloc.start()
    try:
        made, report = quantize(artifact(graph), noise, operators=Operators)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.graph.integer
    assert report.images == 40
    assert peak < 4 * largest


@pytest.mark.parametrize("per_tensor", [True, False])
def test_one_scale_for_each_layer_if_asked(per_tensor):
    made, _ = quantize(artifact(), images(artifact().graph, 4), Settings(per_tensor=per_tensor))
    layers = {node.name: node.op for node in made.graph if isinstance(node.op, ops.Conv | ops.Dense)}
    assert len(layers) == 3
    assert {name: len(op.grid.scale) for name, op in layers.items()} == {
        name: 1 if per_tensor else op.out for name, op in layers.items()
    }
