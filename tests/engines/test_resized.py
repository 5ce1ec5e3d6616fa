"""Maps of other sizes, slopes per channel, exp and differences in every engine, in floats and in bytes."""

from importlib.util import find_spec

import numpy as np
import pytest

from anything import Anything, any_task
from networks import resized, resized_bytes
from smallcnn import onnx, runtime
from smallcnn.model.probe import INTEGER_TOLERANCE, TOLERANCE
from smallcnn.onnx.read.reading import read_onnx
from smallcnn.reference import floating, integer
from smallcnn.tasks import kinds

ENGINES = [name for name in ("onnxruntime", "openvino", "torch") if find_spec(name)]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(kinds.TASKS, "anything", Anything)


def batch(graph):
    return np.random.default_rng(0).integers(0, 256, (3, *graph.input_shape), np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
def test_floats(engine):
    model = any_task(resized())
    images = batch(model.graph)
    wanted = floating.run(model.graph, model.weights, model.preprocessing.normalise(images))["logits"]
    net = runtime.of(model, engine=engine, threads=1)
    np.testing.assert_allclose(net.run(images)["logits"], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert net.verify() < TOLERANCE


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes(engine):
    """Engines that add and multiply in float32 are off by one step at most, where a number is halfway."""
    model = any_task(resized_bytes())
    images = batch(model.graph)
    wanted = integer.run(model.graph, model.weights, model.preprocessing.normalise(images))
    net = runtime.of(model, engine=engine, threads=1)
    got = net.run(images)
    assert got["codes"].dtype == np.uint8
    off = np.abs(got["codes"].astype(int) - wanted["codes"])
    assert len(np.unique(wanted["codes"])) > 50
    assert off.max() <= 1
    assert np.count_nonzero(off) < 0.02 * off.size
    np.testing.assert_allclose(got["logits"], wanted["logits"], rtol=0, atol=0.02 * np.abs(wanted["logits"]).max())
    assert net.verify() < INTEGER_TOLERANCE


@pytest.mark.parametrize("made", [resized, resized_bytes])
def test_the_exported_file_comes_back(made, tmp_path):
    """The same operators, but for nearest pixels that the file gathers, and the same answer."""
    model = any_task(made())
    onnx.export(model, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    kinds = [sorted(repr(node.op) for node in graph) for graph in (model.graph, read.graph)]
    assert kinds[0] == kinds[1]
    images = batch(model.graph)
    run = integer.run if model.graph.integer else floating.run
    got, wanted = (run(net.graph, net.weights, net.preprocessing.normalise(images)) for net in (read, model))
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-6)
