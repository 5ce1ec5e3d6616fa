"""Detectors in every engine: the same objects as the definition, and a probe that no fault of the decoder passes."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from anything import any_task
from networks import detector, every_row
from smallcnn import onnx, runtime
from smallcnn.engines import engine as engines
from smallcnn.errors import AnswerError, ExportError
from smallcnn.ir import ops
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_answer
from smallcnn.model.sightings import detection_error, end_of, telling
from smallcnn.onnx import nodes
from smallcnn.reference import certainty, floating
from smallcnn.reference.detection import detect
from smallcnn.tasks.detection import Detection

NEEDS = {"compiled": "halide", "openvino": "openvino", "torch": "torch"}
VARIANTS = {
    "SSD": {},
    "across": {"across": True, "count": 7},
    "softmax with background": {"score": "softmax", "background": True, "threshold": 0.3},
    "tanh and linear": {"size": "linear", "centre": "tanh", "y_first": False, "clip": True},
    "sigmoid sizes": {"size": "sigmoid", "overlap": 0.2, "score": "softmax"},
    "objectness": {"objectness": True, "objectness_power": 0.6},
    "more rows than boxes": {"count": 300, "threshold": 0.1},
}
ENGINES = ("onnxruntime", "openvino", "torch")
BATCH = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)


def model(**how):
    graph = detector(**how)
    labels = ("ant", "bee", "cat", "dog")[: 4 - bool(how.get("background"))]
    made = any_task(graph)
    return Model(graph, made.weights, Detection(labels), made.preprocessing)


def same(got, wanted):
    np.testing.assert_array_equal(got["count"], wanted["count"])
    np.testing.assert_array_equal(got["classes"], wanted["classes"])
    np.testing.assert_allclose(got["scores"], wanted["scores"], rtol=1e-5)
    np.testing.assert_allclose(got["boxes"], wanted["boxes"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_every_engine_finds_what_the_definition_finds(change):
    made = model(**change)
    wanted = floating.run(made.graph, made.weights, made.preprocessing.normalise(BATCH))
    assert wanted["count"].min() > 2
    for engine in ENGINES:
        if find_spec(NEEDS.get(engine, engine)):
            net = runtime.of(made, engine=engine, threads=1)
            same(net.run(BATCH), wanted)
            assert net.verify() < 1e-5


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_a_compiled_file_finds_it_on_any_number_of_threads(tmp_path, change):
    pytest.importorskip("halide")
    from smallcnn.compiler.compiling import compile_file

    made = model(**change)
    wanted = floating.run(made.graph, made.weights, made.preprocessing.normalise(BATCH))
    compile_file(made, tmp_path / "m.so", workers=1)
    answers = [runtime.open(tmp_path / "m.so", threads=threads).run(BATCH) for threads in (1, 2, 3)]
    same(answers[0], wanted)
    for other in answers[1:]:
        for name, value in other.items():
            np.testing.assert_array_equal(value, answers[0][name])


def test_rows_that_no_detector_reads():
    made = any_task(every_row())
    images = BATCH[:, :9, :8].copy()
    wanted = floating.run(made.graph, made.weights, made.preprocessing.normalise(images))
    for engine in ENGINES:
        if find_spec(NEEDS.get(engine, engine)):
            got = runtime.of(made, engine=engine, threads=1).run(images)
            for name, value in wanted.items():
                np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5)
    if find_spec("halide"):
        import compiled_networks

        compiled_networks.check(made.graph, images=images)


def test_answers_are_in_pixels_of_the_image():
    made = model()
    height, width = 32, 96  # twice as high and four times as wide as the input
    made = replace(made, preprocessing=replace(made.preprocessing, fit="stretch", crop=1.0))
    net = runtime.of(made, threads=1)
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    (answer,) = net.answers([image])
    outputs = net.run(made.preprocessing.prepare(image).pixels[None])
    count = int(outputs["count"][0, 0])
    wanted = np.clip(outputs["boxes"][0][:count] * [width, height, width, height], 0, [width, height, width, height])
    assert answer.labels == ("ant", "bee", "cat", "dog")
    assert len(answer.found) == count > 2
    np.testing.assert_allclose(answer.boxes, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("image", [np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8),
                                   np.zeros((1, 1000, 3), np.uint8), np.full((1000, 1, 3), 9, np.uint8)])  # fmt: skip
def test_plain_and_narrow_images(image):
    (answer,) = runtime.of(model(), threads=1).answers([image])
    assert np.isfinite(answer.boxes).all()
    assert (answer.boxes >= 0).all()
    assert (answer.boxes.max(0, initial=0) <= [*image.shape[1::-1], *image.shape[1::-1]]).all()


# --- the probe ---


@pytest.fixture(scope="module")
def probed():
    made = model(count=100, overlap=0.3)  # finds fewer, and some overlap, so that the thresholds decide
    return made, probe_answer(made.graph, made.weights, made.preprocessing)


def of_engine(made, **change):
    """What an engine with this fault gives for the probe image."""
    from smallcnn.ir.rewrite import rewrite
    from smallcnn.model.probe import probe_image

    end = end_of(made.graph)
    wrong = rewrite(made.graph, ops={end.name: replace(end.op, **change)}) if change else made.graph
    found = floating.run(wrong, made.weights, made.preprocessing.normalise(probe_image(made.graph.input_shape)))
    return {name: value[0].astype(np.float32) for name, value in found.items()}


def test_the_probe_has_objects_that_are_certain(probed):
    _, wanted = probed
    assert 10 <= wanted["certain"].sum() <= wanted["count"][0] < 100
    assert len(wanted["possible"]) >= wanted["certain"].sum()


def test_the_right_answer_passes(probed):
    made, wanted = probed
    assert detection_error(of_engine(made), wanted) < 1e-6


@pytest.mark.parametrize(
    "fault",
    [
        {"y_first": False}, {"centre_scale": 0.11}, {"size_scale": 0.21}, {"overlap": 0.25}, {"overlap": 0.35},
        {"threshold": 0.6}, {"score": "softmax"}, {"background": True}, {"across": True}, {"centre": "tanh"},
        {"size": "sigmoid"}, {"clip": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_faulty_decoder_is_caught(probed, fault):
    made, wanted = probed
    assert detection_error(of_engine(made, **fault), wanted) == np.inf


@pytest.mark.parametrize("fault", ["class", "missing", "doubled", "order", "count", "rest", "box", "score", "nan"])
def test_a_wrong_row_is_caught(probed, fault):
    made, wanted = probed
    got = {name: value.copy() for name, value in of_engine(made).items()}
    last = int(got["count"][0]) - 1
    match fault:
        case "class":
            got["classes"][0] += 1
        case "missing":
            for name in ("boxes", "scores", "classes"):
                got[name][last] = 0
            got["count"][0] -= 1
        case "doubled":
            for name in ("boxes", "scores", "classes"):
                got[name][1] = got[name][0]
        case "order":
            for name in ("boxes", "scores", "classes"):
                got[name][[0, last]] = got[name][[last, 0]]
        case "count":
            got["count"][0] -= 1
        case "rest":
            got["boxes"] = np.roll(got["boxes"], 1, 0)
        case "box":
            got["boxes"][3, 2] += 3e-4
        case "score":
            got["scores"][0] += 3e-4
        case "nan":
            got["boxes"][2, 1] = np.nan
    assert detection_error(got, wanted) == np.inf


SSD = ops.Detect(
    anchors=(ops.AnchorGrid(cells=(1, 4), sizes=((0.2, 0.5),), step=(1.0, 0.25)),), score="none", background=False,
    centre="linear", size="exp", centre_scale=0.1, size_scale=0.2, y_first=False, clip=False, across=False,
    threshold=0.3, overlap=0.5, most=10,
)  # fmt: skip


def seen(codes, scores, **change):
    rows, certain = certainty.sightings(
        replace(SSD, **change), np.array(codes, np.float32), np.array(scores, np.float32)[:, None], None, 1e-4
    )
    return [round(float(score), 5) for score in rows[:, 4]], certain.tolist()


def test_near_ties_are_possible_and_clear_ones_certain():
    apart, touching = np.zeros((4, 4)), np.zeros((4, 4))
    touching[1, 0] = -12.5  # the second box lies on the first
    assert seen(apart, [0.9, 0.8, 0.2, 0.1]) == ([0.9, 0.8], [True, True])
    assert seen(touching, [0.9, 0.8, 0.2, 0.1]) == ([0.9], [True])  # suppressed
    assert seen(touching, [0.9, 0.90001, 0.2, 0.1]) == ([0.90001, 0.9], [False, False])  # either suppresses the other
    assert seen(apart, [0.9, 0.30001, 0.29999, 0.1]) == ([0.9, 0.30001, 0.29999], [True, False, False])
    assert seen(apart, [0.9, 0.8, 0.80001, 0.7], most=2) == ([0.9, 0.80001, 0.8], [True, False, False])


@pytest.mark.parametrize("seed", range(20))
def test_what_changes_by_rounding_is_never_certain(seed):
    """Codes and scores off by less than the tolerance: what the definition then finds passes."""
    rng = np.random.default_rng(seed)
    grid = ops.AnchorGrid(cells=(4, 5), sizes=((0.3, 0.3), (0.5, 0.4)), step=(1 / 4, 1 / 5))
    op = replace(SSD, anchors=(grid,), across=bool(seed % 2), most=int(rng.integers(3, 30)), overlap=0.4)
    code = rng.normal(size=(40, 4)).astype(np.float32)
    scores = (np.round(rng.uniform(size=(40, 3)), 2) + rng.normal(size=(40, 3)) * 1e-5).astype(np.float32)
    wanted = outputs(detect(op, code, scores))
    rows, certain = certainty.sightings(op, code, scores, None, 1e-4)
    wanted |= {"possible": rows, "certain": certain.astype(float), "tolerance": np.array([1e-4])}
    for _ in range(5):
        off = [values + rng.uniform(-4e-5, 4e-5, values.shape).astype(np.float32) for values in (code, scores)]
        assert detection_error(outputs(detect(op, *off)), wanted) <= 1e-4


def outputs(found):
    return {"boxes": found[:, :4], "scores": found[:, 4], "classes": found[:, 5],
            "count": np.array([np.count_nonzero(found[:, 4])], np.float32)}  # fmt: skip


def test_a_detector_that_finds_nothing_on_the_probe_is_checked_by_its_twin(tmp_path, monkeypatch):
    """Else a wrong network would be written: its answer, nothing, is right."""
    made = model(threshold=0.999)
    answer = probe_answer(made.graph, made.weights, made.preprocessing)
    assert answer["count"] == [0]
    assert end_of(telling(made.graph, answer)).op.threshold == 0
    assert telling(made.graph, answer | {"certain": np.ones(1)}) is None
    assert onnx.export(made, tmp_path / "m.onnx") < 1e-5
    right = nodes.detection.anchors
    monkeypatch.setattr(nodes.detection, "anchors", lambda op: right(op)[:, [1, 0, 3, 2]])
    with pytest.raises(ExportError, match="is off by inf"):
        onnx.export(made, tmp_path / "wrong.onnx")


def test_a_faulty_engine_is_refused(tmp_path, monkeypatch):
    """Of a model in memory and of a file."""
    made = model()
    onnx.export(made, tmp_path / "m.onnx")
    store.save(made, tmp_path / "m.safetensors")
    right = engines.ENGINES["onnxruntime"]

    def wrong(loadable, threads):
        session = right(loadable, threads)

        def run(batch):
            answer = session.run(batch)
            return answer | {"boxes": answer["boxes"][..., [1, 0, 3, 2]]}

        return replace(session, run=run)

    monkeypatch.setitem(engines.ENGINES, "onnxruntime", wrong)
    for suffix in (".onnx", ".safetensors"):
        net = runtime.open(tmp_path / f"m{suffix}", threads=1)
        with pytest.raises(AnswerError, match="gives a wrong answer on the probe image"):
            net.run(BATCH)
