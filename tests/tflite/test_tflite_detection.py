"""The end of an SSD in TensorFlow Lite files: read, and run beside LiteRT."""

import numpy as np
import pytest

from coco_photos import coco_photos, large_objects_found
from shared_files import shared
from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.model.sightings import end_of
from smallcnn.reference import floating
from smallcnn.tflite import read_tflite
from tflite_files import KIND, OP, PAD, Draft

NAME = "TFLite_Detection_PostProcess"
SETTINGS = {
    "max_detections": 6, "max_classes_per_detection": 1, "num_classes": 2, "nms_iou_threshold": 0.4,
    "nms_score_threshold": 0.3, "x_scale": 10.0, "y_scale": 10.0, "w_scale": 5.0, "h_scale": 5.0,
    "use_regular_nms": False,
}  # fmt: skip
CELLS = ((4, 6, ((0.3, 0.2),)), (2, 3, ((0.3, 0.6), (0.7, 0.7))))


def anchors():
    """Centre y, centre x, height, width."""
    rows = [
        ((row + 0.5) / high, (column + 0.5) / wide, height, width)
        for high, wide, boxes in CELLS for row in range(high) for column in range(wide) for width, height in boxes
    ]  # fmt: skip
    return np.array(rows, np.float32)


COCO = "weights/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"


def detector(path, places=None, heads=None, joined=None, **changes):
    """A detector of two maps with random weights; `heads` and `joined` are the types of codes and scores before and
    after they are joined."""
    draft, rng = Draft(), np.random.default_rng(0)
    image = draft.tensor((1, 16, 24, 3))

    heads, joined = heads or {}, joined or {}

    def conv(source, shape, out, channels, stride=1, **kind):
        weight = draft.constant((rng.normal(size=(out, 1, 1, channels))).astype(np.float32))
        bias = draft.constant(rng.normal(size=out).astype(np.float32))
        made = draft.tensor((1, *shape, out), **kind)
        return draft.op(OP.CONV_2D, [source, weight, bias], made, StrideH=stride, StrideW=stride,
                        DilationHFactor=1, DilationWFactor=1, Padding=PAD.SAME)  # fmt: skip

    x = conv(image, (4, 6), 8, 3, 4)
    small = conv(x, (2, 3), 8, 8, 2)
    parts = {4: [], 3: []}
    for source, (high, wide, boxes) in zip((x, small), CELLS, strict=True):
        for columns, found in parts.items():
            head = conv(source, (high, wide), columns * len(boxes), 8, **heads)
            count = high * wide * len(boxes)
            shape = (1, count, 1, 4) if columns == 4 else (1, count, 3)
            rows = draft.tensor(shape, **heads)
            found.append(draft.op(OP.RESHAPE, [head, draft.constant(np.array(shape, np.int32))], rows))
    coded = draft.op(OP.CONCATENATION, parts[4], draft.tensor((1, 36, 1, 4), **joined), Axis=1)
    coded = draft.op(OP.RESHAPE, [coded, draft.constant(np.array((1, 36, 4), np.int32))], draft.tensor((1, 36, 4)))
    scores = draft.op(OP.CONCATENATION, parts[3], draft.tensor((1, 36, 3), **joined), Axis=1)
    scores = draft.op(OP.LOGISTIC, [scores], draft.tensor((1, 36, 3)))
    place = draft.constant(anchors() if places is None else places)
    ends = [draft.tensor(shape) for shape in ((1, 6, 4), (1, 6), (1, 6), (1,))]
    draft.op(NAME, [coded, scores, place], ends, **(SETTINGS | changes))
    return draft.write(path, [image], ends)


@pytest.mark.parametrize(("step", "clips"), [(0.1, 4), (0.05, 6)])  # the four heads'; also the two joined ones'
def test_rows_joined_in_one_range_need_no_clip(step, clips, tmp_path):
    heads = {"kind": KIND.UINT8, "scale": 0.1, "zero": 100}
    path = detector(tmp_path / "d.tflite", heads=heads, joined={**heads, "scale": step})
    graph = read_tflite(path, integer=False).graph
    assert sum(isinstance(node.op, ops.Clip) for node in graph) == clips


def by_litert(path, images):
    """Boxes left first, classes, scores, count of each image, by the file's own runtime."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    (image,), ends = interpreter.get_input_details(), interpreter.get_output_details()
    for pixels in images:
        interpreter.set_tensor(image["index"], pixels[None])
        interpreter.invoke()
        boxes, classes, scores, count = (interpreter.get_tensor(end["index"])[0] for end in ends)
        yield boxes[:, [1, 0, 3, 2]], classes, scores, int(count)


@pytest.mark.parametrize("regular", [False, True])
def test_finds_what_litert_finds(tmp_path, regular):
    more = {"use_regular_nms": regular, "detections_per_class": 100}
    path = detector(tmp_path / "m.tflite", **more)
    model = read_tflite(path)
    end = end_of(model.graph).op
    assert (end.score, end.background, end.across, end.most) == ("sigmoid", True, not regular, 6)
    assert (end.threshold, end.overlap, end.centre_scale, end.size_scale) == (0.3, 0.4, 0.1, 0.2)
    images = np.random.default_rng(1).uniform(-1, 1, (4, 16, 24, 3)).astype(np.float32)
    ours = floating.run(model.graph, model.weights, images)
    for i, (boxes, classes, scores, count) in enumerate(by_litert(path, images)):
        assert ours["count"][i, 0] == count > 0
        np.testing.assert_allclose(ours["scores"][i][:count], scores[:count], rtol=1e-5)
        np.testing.assert_array_equal(ours["classes"][i][:count], classes[:count])
        np.testing.assert_allclose(ours["boxes"][i][:count], boxes[:count], rtol=1e-4, atol=1e-5)


def test_labels_and_the_whole_image(tmp_path):
    made = import_checkpoint([detector(tmp_path / "m.tflite")], labels=["cat", "n/a"])
    assert made.labels == ("cat", "n/a")
    assert (made.preprocessing.fit, made.preprocessing.crop) == ("stretch", 1.0)
    with pytest.raises(FileError, match="3 labels for 2 classes"):
        import_checkpoint([tmp_path / "m.tflite"], labels=["a", "b", "c"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 7}, "has scores of 3 classes for 7"),
        ({"x_scale": 9.0}, "scales 9, 10, 5, 5; those of an axis pair must be equal"),
        ({"max_classes_per_detection": 2}, "gives a box several classes"),
        ({"max_detections": 0}, "most must be a whole number"),
    ],
)
def test_refuses_what_it_cannot_express(tmp_path, change, message):
    with pytest.raises(FileError, match=f"operator 14, {NAME}: .*{message}"):
        read_tflite(detector(tmp_path / "m.tflite", **change))


def test_refuses_anchors_that_are_no_grid(tmp_path):
    moved, grown, short = anchors(), anchors(), anchors()[:-1]
    moved[5, 0] += 0.01
    grown[3, 2] *= 1.01
    for places, message in (
        (moved, r"off the centres of the cells of a map of 4x6, by 0\.01"),
        (grown, "different sizes in the cells of a map of 4x6"), (short, "different sizes|35 anchors"),
    ):  # fmt: skip
        with pytest.raises(FileError, match=message):
            read_tflite(detector(tmp_path / "m.tflite", places))


@pytest.mark.parametrize("integer", [False, True])
def test_the_public_coco_detector_finds_what_litert_finds(integer):
    """Objects that LiteRT is sure of, at their places to 1 % of the image."""
    path = shared(COCO)
    model = read_tflite(path, integer=integer)
    assert [grid.cells for grid in end_of(model.graph).op.anchors] == [(n, n) for n in (19, 10, 5, 3, 2, 1)]
    assert model.graph.integer == integer
    net = runtime.of(model, threads=1)
    rows, columns = np.mgrid[:300, :300]
    images = []
    for shift in (0, 90):  # discs on a gradient
        disc = (rows - 150 - shift / 3) ** 2 + (columns - 120 - shift) ** 2 < 70**2
        images.append(
            np.where(disc[..., None], [230, 90, 20], (columns // 2)[..., None] + [40, 60, 80]).astype(np.uint8)
        )
    ours = net.run(np.stack(images))
    for i, (boxes, classes, scores, _) in enumerate(by_litert(path, images)):
        best = int(scores.argmax())
        same = np.flatnonzero(ours["classes"][i] == classes[best])
        off = np.abs(ours["boxes"][i][same] - boxes[best]).max(1)
        assert off.min() < 0.01
        assert abs(ours["scores"][i][same[off.argmin()]] - scores[best]) < 0.05


@pytest.mark.parametrize(("integer", "found"), [(True, 96), (False, 97)])
def test_the_public_coco_detector_finds_96_of_136_large_objects(integer, found, tmp_path):
    """As counted with the original file at a score above 0.5; its activations do not saturate as floats."""
    labels = shared("weights/coco_labels.txt").read_text().splitlines()
    model = import_checkpoint([shared(COCO)], labels=labels, integer=integer)
    assert large_objects_found(model, coco_photos(tmp_path), score=0.5) == (found, 136)
