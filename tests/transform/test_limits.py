"""Limits of a detector changed before it is exported or compiled, and when a file is opened."""

import ctypes
import json
import pickle
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import helper, load, numpy_helper, save
from PIL import Image

from anything import any_task
from artifacts import artifact
from networks import detector, tiny
from smallcnn import runtime
from smallcnn.errors import FileError, GraphError
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.kinds import COMPILED
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


def written(smallcnn, file, kind):
    """The file of a detector that finds up to 100 objects."""
    out = file.with_suffix(kind)
    command = "export" if kind == ".onnx" else "compile"
    assert smallcnn(command, file, "--out", out, "--most", 100)[0] == 0
    return out


ASKED = (Limits(0.3), Limits(overlap=0.9), Limits(0.2, 0.8, 90), Limits(most=3), Limits(0.7), Limits(overlap=0.1))


@pytest.mark.parametrize(("engine", "asked"), [("onnxruntime", ASKED), ("openvino", ASKED[1:3]), ("compiled", ASKED)])
def test_a_written_file_keeps_what_a_run_asks_for(smallcnn, file, engine, asked):
    """Below and above its own threshold of 0.5 and its own overlap of 0.5; as the model it was made from."""
    pytest.importorskip({"compiled": "halide"}.get(engine, engine))
    out = written(smallcnn, file, COMPILED[0] if engine == "compiled" else ".onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    counts = []
    for limits in asked:
        wanted = runtime.open(file, limits=replace(limits, most=limits.most or 100)).run(images)
        opened = runtime.open(out, engine=engine, threads=1, limits=limits)
        assert opened.verify() < 1e-5  # the file itself
        nets = [opened] if engine == "openvino" else [opened, pickle.loads(pickle.dumps(opened))]
        for net in nets:
            found = net.run(images)
            for name, value in wanted.items():
                rows = found[name][:, : value.shape[1]]
                np.testing.assert_allclose(rows, value, atol=1e-5)
                assert not found[name][:, value.shape[1] :].any()
        counts.append(int(wanted["count"].sum()))
    assert len(set(counts)) == len(asked)  # each of the limits matters
    if engine == "compiled":
        limit, net = in_c(out)
        for wrong in ((1.1, 0.5, 5), (0.5, 1.1, 5), (float("nan"), 0.5, 5), (0.5, float("nan"), 5), (0.5, 0.5, 0)):
            assert limit(net, *wrong) == ARGUMENT
        assert [limit(net, -1, -1, most) for most in (101, 100, -1)] == [ARGUMENT, 0, 0]
        assert limit(None, -1, -1, -1) == ARGUMENT


ARGUMENT = 2  # SMALLCNN_ARGUMENT of the C header


def in_c(file):
    """The function that sets limits, and a network to set them of."""
    library, net = ctypes.CDLL(str(file)), ctypes.c_void_p()
    assert library.smallcnn_create(1, ctypes.byref(net)) == 0
    library.smallcnn_limit.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_float, ctypes.c_int]
    return library.smallcnn_limit, net


def test_limits_that_a_written_file_cannot_have(smallcnn, file):
    out = written(smallcnn, file, ".onnx")
    with pytest.raises(
        FileError, match=r"m\.onnx: finds at most 100 objects; a higher most is set when it is exported"
    ):
        runtime.open(out, limits=Limits(most=101))
    with pytest.raises(GraphError, match=r"^overlap must be from 0 to 1, not 1\.5$"):
        Limits(overlap=1.5)
    with pytest.raises(GraphError, match=r"^most must be a whole number from 1"):
        Limits(most=0)
    changed = load(out)
    overlap = next(tensor for tensor in changed.graph.initializer if tensor.name == "detect.found.overlap")
    changed.graph.node.insert(0, helper.make_node("Constant", [], [overlap.name], value=overlap))
    changed.graph.initializer.remove(overlap)
    save(changed, out)
    with pytest.raises(FileError, match=r"m\.onnx: overlap is fixed in this file"):
        runtime.open(out, limits=Limits(overlap=0.3))


def test_a_written_classifier_has_no_limits(smallcnn, refused, tmp_path):
    store.save(artifact(), tmp_path / "c.safetensors")
    assert smallcnn("export", tmp_path / "c.safetensors", "--out", tmp_path / "c.onnx")[0] == 0
    noise().save(tmp_path / "a.png")
    line = refused("predict", tmp_path / "c.onnx", tmp_path / "a.png", "--threshold", 0.5)
    assert line == "tiny is not a detector: it has no threshold"
