"""Limits of a detector changed before it is exported or compiled, and when a file is opened."""

import json
import pickle

import numpy as np
import onnxruntime
import pytest
from onnx import load, numpy_helper
from PIL import Image

from anything import any_task
from artifacts import artifact
from networks import detector, tiny
from smallcnn import runtime
from smallcnn.errors import FileError, GraphError
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


def test_a_file_opened_with_limits_finds_what_one_exported_with_them_does(smallcnn, file, tmp_path):
    limits = {"threshold": 0.3, "overlap": 0.9, "most": 7}
    options = [word for name, value in limits.items() for word in (f"--{name}", value)]
    assert smallcnn("export", file, "--out", tmp_path / "wanted.onnx", *options)[0] == 0
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "wanted.onnx")
    wanted = dict(zip(("boxes", "scores", "classes", "count"), session.run(None, {"images": images}), strict=True))
    assert (wanted["scores"][:, -1] > 0.3).all()  # so that each limit matters: in the file it is 0.5
    opened = runtime.open(file, limits=Limits(**limits))
    for net in (opened, pickle.loads(pickle.dumps(opened))):
        found = net.run(images)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def noise():
    """An image in which the detector finds much."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))


def test_predict_finds_what_the_file_would_not(smallcnn, file, tmp_path):
    noise().save(tmp_path / "a.png")

    def scores(*options):
        (record,) = json.loads(smallcnn("predict", file, tmp_path / "a.png", "--json", *options)[1])
        return [one["score"] for one in record["objects"]]

    own = scores()
    assert min(own, default=1) > 0.5
    assert len(own) < len(scores("--threshold", 0.1, "--most", 50))
    assert len(scores("--threshold", 0.1, "--most", 2)) == 2


def test_limits_of_other_files_are_fixed_but_a_higher_threshold_leaves_out_objects(smallcnn, refused, file, tmp_path):
    out = tmp_path / "m.onnx"
    smallcnn("export", file, "--out", out, "--most", 50)
    with pytest.raises(FileError, match=r"m\.onnx: overlap or most is fixed in this file; set it when the network is"):
        runtime.open(out, limits=Limits(overlap=0.3, most=2))
    assert "threshold is fixed" in refused("evaluate", out, "--data", "digits", "--threshold", 0.5)
    noise().save(tmp_path / "a.png")
    higher = smallcnn("predict", out, tmp_path / "a.png", "--threshold", 0.75, "--csv")[1]
    assert higher == smallcnn("predict", file, tmp_path / "a.png", "--threshold", 0.75, "--most", 50, "--csv")[1]
    assert higher != smallcnn("predict", out, tmp_path / "a.png", "--csv")[1]
