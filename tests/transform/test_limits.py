"""Limits of a detector changed before it is exported or compiled."""

import numpy as np
import onnxruntime
import pytest
from onnx import load, numpy_helper

from anything import any_task
from artifacts import artifact
from networks import detector, tiny
from smallcnn.errors import GraphError
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.model.sightings import end_of
from smallcnn.tasks.detection import Detection
from smallcnn.transform.limits import Limits, limited


@pytest.fixture
def file(tmp_path):
    made = any_task(detector())
    store.save(
        Model(made.graph, made.weights, Detection(tuple("abcd")), made.preprocessing), tmp_path / "m.safetensors"
    )
    return tmp_path / "m.safetensors"


def test_only_what_is_given_changes():
    graph = detector()
    end = end_of(limited(graph, Limits(threshold=0.7, most=5)))
    assert (end.op.threshold, end.op.overlap, end.op.most, end.shape) == (0.7, 0.5, 5, (5, 6))
    assert limited(graph, Limits()) is graph
    assert isinstance(limited(tiny(), Limits()), Graph)


def test_a_classifier_has_no_limits():
    with pytest.raises(GraphError, match=r"^tiny is not a detector: it has no overlap$"):
        limited(tiny(), Limits(overlap=0.3))


def test_export_with_limits(smallcnn, file, tmp_path):
    out = tmp_path / "m.onnx"
    assert smallcnn("export", file, "--out", out, "--threshold", "0.6", "--overlap", "0.3", "--most", "4")[0] == 0
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in load(out).graph.initializer}
    assert stored["detect.found.threshold"] == np.float32(0.6)
    assert stored["detect.found.overlap"] == np.float32(0.3)
    session = onnxruntime.InferenceSession(out)
    boxes, scores, _, count = session.run(None, {"images": np.zeros((2, 16, 24, 3), np.uint8)})
    assert boxes.shape == (2, 4, 4)
    assert count.max() <= 4
    assert (scores[scores > 0] > 0.6).all()


def test_a_classifier_is_refused(refused, tmp_path):
    store.save(artifact(), tmp_path / "c.safetensors")
    line = refused("export", tmp_path / "c.safetensors", "--out", tmp_path / "c.onnx", "--most", "3")
    assert line == "tiny is not a detector: it has no most"
