"""Detectors that join objectness, codes and scores: their parts, and FastestDet with its decoding as data."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnxruntime
import pytest

from anything import Anything
from coco_photos import coco_photos, large_objects_found
from onnx_files import made, node, random
from shared_files import shared
from smallcnn import onnx, runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import FileError
from smallcnn.foreign import decodings
from smallcnn.foreign.decodings import DECODINGS
from smallcnn.ir import ops
from smallcnn.ir.rewrite import rewrite
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.model.probe import TOLERANCE
from smallcnn.model.sightings import READ, end_of, with_inputs
from smallcnn.onnx import from_onnx, read_onnx
from smallcnn.reference import floating
from smallcnn.tasks import kinds

FASTESTDET = "data/fastestdet_coco_352_float.onnx"

SHAPE = [1, 3, 4, 6]
PLACE = ops.AnchorGrid(cells=(4, 6), sizes=((1.0, 1.0),), step=(1 / 4, 1 / 6), offset=0.0)
SMALL = decodings.Decoding(
    "a detector of this test", (4, 6), (24, 4), (24, 3),
    ops.Detect(
        anchors=(PLACE,), score="softmax", background=False, centre="tanh", size="sigmoid", centre_scale=0.2,
        size_scale=1.0, y_first=False, clip=False, across=True, threshold=0.1, overlap=0.9, most=24,
    ),
    ("ant", "bee", "cat"), 0.0, 1.0, "bgr", (24, 1),
)  # fmt: skip
PLAIN = [node("Softmax", "c", "p", axis=1)]
TURNED = [
    node("Transpose", "c", "c_last", perm=[0, 3, 2, 1]),
    node("Softmax", "c_last", "p_last", axis=3),
    node("Transpose", "p_last", "p", perm=[0, 3, 2, 1]),
]


def joined(*scores, end=None):
    heads = [node("Conv", f"x {name}w", name) for name in "obc"]
    end = end or node("Concat", "sure b p", "y", axis=1)
    stored = {"ow": random(1, 3, 1, 1), "bw": random(4, 3, 1, 1), "cw": random(3, 3, 1, 1)}
    return made([*heads, node("Sigmoid", "o", "sure"), *scores, end], SHAPE, stored)


@pytest.mark.parametrize("scores", [PLAIN, TURNED], ids=["plain", "turned"])
def test_parts_are_what_the_file_joins(scores, monkeypatch, tmp_path):
    """Code, softmax and objectness of the file, decoded by formulas written here."""
    monkeypatch.setattr(decodings, "DECODINGS", (*DECODINGS, SMALL))
    file = joined(*scores)
    (tmp_path / "m.onnx").write_bytes(file.SerializeToString())
    model = read_onnx(tmp_path / "m.onnx")
    assert model.labels == SMALL.labels
    done = model.preprocessing
    assert (done.fit, done.order, done.std) == ("stretch", "bgr", (1.0,) * 3)
    x = random(*SHAPE, seed=3)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    (cells,) = session.run(None, {"x": x})[0]
    found = floating.run(model.graph, model.weights, x.transpose(0, 2, 3, 1))
    score = np.sqrt(cells[0] * cells[5:].max(0)).ravel()
    best = np.argsort(-score, kind="stable")[0]
    row, column = divmod(int(best), 6)
    x0, y0, w, h = cells[1:5, row, column]
    centre = (column / 6 + 0.2 * np.tanh(x0), row / 4 + 0.2 * np.tanh(y0))
    wide, high = 1 / (1 + np.exp(-w)), 1 / (1 + np.exp(-h))
    wanted = [centre[0] - wide / 2, centre[1] - high / 2, centre[0] + wide / 2, centre[1] + high / 2]
    np.testing.assert_allclose(found["boxes"][0, 0], wanted, rtol=1e-5)
    np.testing.assert_allclose(found["scores"][0, 0], score[best], rtol=1e-5)
    assert found["classes"][0, 0] == cells[5:, row, column].argmax()


def test_an_unknown_detector_is_named_by_its_shapes():
    shapes = r"coded \(4, 6, 4\), scores \(4, 6, 3\), objectness \(4, 6, 1\)"
    with pytest.raises(FileError, match=rf"ends as a detector does \({shapes}\), but its decoding is not known"):
        from_onnx(joined(*PLAIN))


@pytest.mark.parametrize(
    ("scores", "end"),
    [
        ([node("Softmax", "c", "p", axis=3)], None),  # over the columns
        ([*TURNED[:2], node("Transpose", "p_last", "p", perm=[0, 3, 1, 2])], None),
        ([node("Sigmoid", "c", "p")], None),
        (PLAIN, node("Concat", "b sure p", "y", axis=1)),
        (PLAIN, node("Concat", "sure p", "y", axis=1)),
    ],
)
def test_other_ends_are_not_taken_for_one(scores, end):
    with pytest.raises(FileError) as caught:
        from_onnx(joined(*scores, end=end))
    assert "ends as a detector" not in str(caught.value)


# FastestDet


@pytest.fixture(scope="module")
def fastestdet() -> Model:
    return import_checkpoint([shared(FASTESTDET)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return coco_photos(tmp_path_factory.mktemp("coco"))


def test_fastestdet_finds_101_of_136_large_objects(fastestdet, photos):
    """As counted with the original file: the best class of each cell, and no box suppressed."""
    end = end_of(fastestdet.graph)
    every = rewrite(fastestdet.graph, ops={end.name: replace(end.op, across=True, overlap=1.0, most=484)})
    assert large_objects_found(replace(fastestdet, graph=every), photos) == (101, 136)


def test_fastestdet_computes_what_the_original_file_does(fastestdet, photos, monkeypatch):
    """Codes, logits and objectness of a photograph; ours goes through export, which turns blue and red."""
    made = replace(fastestdet, graph=with_inputs(fastestdet.graph), task=Anything())
    monkeypatch.setitem(kinds.TASKS, "anything", Anything)
    picture = photos / "val" / "images" / "000000000139.jpg"
    pixels = fastestdet.preprocessing.prepare(picture).pixels[None]
    original = onnxruntime.InferenceSession(str(shared(FASTESTDET)))
    fed = (pixels[..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)
    (cells,) = original.run(None, {"input.1": fed})[0]
    session = onnxruntime.InferenceSession(onnx.to_onnx(made).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(None, {"images": pixels}), strict=True))
    coded, scores, objectness = (got[name][0] for name in names if name.startswith(READ))
    powers = np.exp(scores - scores.max(1, keepdims=True))
    ours = np.concatenate([objectness, coded, powers / powers.sum(1, keepdims=True)], 1)
    np.testing.assert_allclose(ours, cells.reshape(85, -1).T, rtol=0, atol=1e-4 * np.abs(cells).max())


@pytest.mark.long
def test_fastestdet_is_one_file_for_every_engine(fastestdet, photos, tmp_path):
    store.save(fastestdet, tmp_path / "m.safetensors")
    onnx.export(fastestdet, tmp_path / "m.onnx")
    files = [("safetensors", "torch"), ("onnx", "onnxruntime"), ("onnx", "openvino")]
    if find_spec("halide"):
        from smallcnn.compiler.compiling import compile_file

        compile_file(fastestdet, tmp_path / "m.so")
        files.append(("so", "compiled"))
    pictures = sorted((photos / "val" / "images").glob("*.jpg"))[:8]
    answers = []
    for suffix, engine in files:
        if engine == "compiled" or find_spec(engine):
            net = runtime.open(tmp_path / f"m.{suffix}", engine=engine, threads=1)
            assert net.verify() < TOLERANCE
            answers.append(list(net.answers(pictures)))
    for other in answers[1:]:
        for got, wanted in zip(other, answers[0], strict=True):
            np.testing.assert_array_equal(got.classes, wanted.classes)
            np.testing.assert_allclose(got.scores, wanted.scores, rtol=1e-4)
            np.testing.assert_allclose(got.boxes, wanted.boxes, rtol=1e-4, atol=0.02)
