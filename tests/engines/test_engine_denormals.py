"""A network whose activations would be denormal: every engine takes them for zero, on any number of threads."""

from contextlib import suppress

import numpy as np
import pytest

from compiled_networks import AnyTask
from smallcnn.engines import engine as engines
from smallcnn.engines.session import Loadable
from smallcnn.errors import MissingExtra
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.model.model import Model
from smallcnn.reference import floating as reference

SIZE, CHANNELS = 32, 16
IMAGES = np.random.default_rng(0).integers(1, 256, (3, SIZE, SIZE, 3), np.uint8)
SCALES = {"products": (1e-20, 1e-20), "weights": (1, 1e-40)}  # of the two convolutions
BIAS = np.array([0.25, -3], np.float32)


def network(scales):
    """Two convolutions to values near 1e-40, and a classifier that multiplies their mean by 1e38."""
    g = Builder(input=(SIZE, SIZE, 3))
    x = g.conv(g.input, CHANNELS, kernel=3, stride=1, name="first")
    x = g.conv(x, CHANNELS, kernel=1, name="second")
    graph = g.graph(g.dense(g.global_pool(x), len(BIAS), name="classifier"), features=x, name="faint")
    rng = np.random.default_rng(1)
    weights = {name: rng.uniform(0.1, 1, weight.shape) for name, weight in graph.weights.items()}
    for layer, scale in zip(("first", "second", "classifier"), (*scales, 1e38), strict=True):
        weights[f"{layer}.weight"] *= scale / weights[f"{layer}.weight"][0].size
        weights[f"{layer}.bias"] *= 0
    weights = {name: value.astype(np.float32) for name, value in weights.items()} | {"classifier.bias": BIAS}
    return Model(graph, weights, AnyTask(), Preprocessing((SIZE, SIZE), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def denormals_kept():
    """Whether this thread computes with them."""
    return bool((np.full(64, 1e-40, np.float32) * np.float32(0.5)).any())


def session(model, engine, threads, folder):
    if engine != "compiled":
        with suppress(MissingExtra):
            return engines.start(Loadable(model, "faint"), engine, threads)
        pytest.skip(f"no {engine}")
    pytest.importorskip("halide")
    from smallcnn.compiler import link, targets
    from smallcnn.compiler.compiling import to_program

    path = folder / f"faint{targets.host().suffixes[0]}"
    expected = {name: np.zeros(tensor.shape) for name, tensor in model.graph.results.items()}
    link.write(to_program(model, targets.host(), expected, workers=1).program, path)
    return engines.start(Loadable(path, "faint"), engine, threads)


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_the_definition_keeps_them(scales):
    """In float64 they are numbers like others, and add to the answer what no rounding hides."""
    model = network(scales)
    (answer,) = reference.run(model.graph, model.weights, model.preprocessing.normalise(IMAGES)).values()
    assert (np.abs(answer - BIAS) > 1e-4).all()


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_engines_take_them_for_zero(engine, scales, tmp_path):
    model = network(scales)
    for threads in (1, 2, 3):
        (answer,) = session(model, engine, threads, tmp_path).run(IMAGES).values()
        np.testing.assert_array_equal(answer, np.broadcast_to(BIAS, answer.shape))
        assert denormals_kept(), "the caller's setting was changed"


def test_torch_threads_are_as_before():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        for threads in (2, 3):
            session(network(SCALES["products"]), "torch", threads, None).run(IMAGES)
            assert (torch.full((1 << 20,), 1e-40) * 0.5).count_nonzero() == 1 << 20  # on all its threads
    finally:
        torch.set_num_threads(before)
