import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import smallcnn
from artifacts import COLOURS, LABELS, artifact
from smallcnn import onnx, runtime
from smallcnn.errors import AnswerError, DataError, FileError, GraphError, ImageError, SmallcnnError
from smallcnn.model import metadata
from smallcnn.model.probe import TOLERANCE
from smallcnn.model.store import save
from smallcnn.reference import floating as reference
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Prediction


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(artifact(note="hello"), folder / "m.safetensors")
    onnx.export(artifact(note="hello"), folder / "m.onnx")
    onnx.export(artifact(note="hello"), folder / "p.onnx", probabilities=True)
    return folder


CASES = [
    ("m.safetensors", "onnxruntime"),
    ("m.safetensors", "openvino"),
    ("m.safetensors", "torch"),
    ("m.onnx", "onnxruntime"),
    ("m.onnx", "openvino"),
]


@pytest.mark.parametrize(("file", "engine"), CASES)
def test_every_file_in_every_engine_is_the_same_network(folder, file, engine):
    pytest.importorskip(engine)
    net = smallcnn.open(folder / file, engine=engine, threads=1)
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    model = artifact()
    expected = reference.answer(model.graph, model.weights, model.preprocessing.normalise(batch))
    np.testing.assert_allclose(net.logits(batch), expected, rtol=0, atol=1e-5 * np.abs(expected).max())  # float32 sums
    assert (net.labels, net.facts, net.name, net.mult_adds) == (LABELS, {"note": "hello"}, "tiny", 2316)
    assert net.verify() < TOLERANCE


def test_an_onnx_file_of_another_program_says_how_to_take_it_over(tmp_path):
    foreign = onnx.to_onnx(artifact())
    del foreign.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    with pytest.raises(FileError, match=r"smallcnn import .*foreign\.onnx --out .*foreign\.safetensors"):
        runtime.open(tmp_path / "foreign.onnx")


def test_what_a_file_says_of_itself_comes_back():
    model, answer = artifact(note="hello"), np.array([0.125, -2, 3.5])
    said = metadata.parse(metadata.describe(model, probabilities=True, answer={"probabilities": answer}))
    assert (said.name, said.mult_adds, said.outputs_probabilities) == ("tiny", 2316, True)
    assert said.layers == {"stem.conv": 16 * 4 * 27, "block.conv": 16 * 4 * 9, "classifier": 4 * 3}
    assert (said.task, said.facts, said.preprocessing) == (model.task, {"note": "hello"}, model.preprocessing)
    np.testing.assert_array_equal(said.answer["probabilities"], answer)


@pytest.mark.parametrize(("key", "value", "says"), [
    ("format", None, "not smallcnn's: its metadata has no smallcnn.format"),
    ("probe", None, "not smallcnn's: its metadata has no smallcnn.probe"),
    ("results", None, "not smallcnn's: its metadata has no smallcnn.results"),
    ("format", "3", "written in format '3', this smallcnn reads '1' and '2'"),
    ("facts", "[]", "its facts are list, not a JSON object"),
    ("task", '{"kind": "classification", "labels": ["one"], "ending": "softmax"}', "1 labels for an output of shape"),
    ("task", '{"kind": "guessing"}', "no task 'guessing'; "),
    ("task", "[" * 100_000, "its task is not JSON: "),
    ("results", "[]", "labels need one output of logits, not none"),
    ("results", '[{"name": "logits", "shape": [4], "number": "float32"}]', r"3 labels for an output of shape \(4,\)"),
    ("results", '[{"name": "other", "shape": [3], "number": "float32"}]', "do not fit each other: 'other'"),
    ("results", '[{"name": "logits", "shape": [3], "number": "float9"}]', "do not fit each other: "),
    ("mult_adds", "many", "its mult_adds are not JSON"),
    ("mult_adds", '"many"', "its mult_adds are 'many'"),
    ("preprocessing", "{}", "not a description of preprocessing"),
])  # fmt: skip
def test_damaged_metadata(key, value, says):
    entries = metadata.describe(artifact(), answer={"logits": np.zeros(3)})
    if value is None:
        del entries[f"smallcnn.{key}"]
    else:
        entries[f"smallcnn.{key}"] = value
    with pytest.raises(FileError, match=says) as caught:
        metadata.parse(entries)
    assert "\n" not in str(caught.value)


def test_verify_notices_a_network_that_is_not_the_one_exported(folder, tmp_path):
    content = (folder / "m.onnx").read_bytes()
    weights = artifact().weights["classifier.bias"]
    other = (weights + np.float32(0.5)).tobytes()
    assert content.count(weights.tobytes()) == 1
    (tmp_path / "changed.onnx").write_bytes(content.replace(weights.tobytes(), other))
    assert runtime.open(tmp_path / "changed.onnx").verify() > TOLERANCE


@pytest.mark.parametrize("size", [[9, 8], [16_000, 16_000]])
def test_a_file_whose_metadata_say_another_size_is_refused_before_memory_is_taken(tmp_path, size):
    model = onnx.to_onnx(artifact())
    del model.metadata_props[:]
    for key, value in metadata.describe(artifact(), answer={"logits": np.ones(3)}).items():
        model.metadata_props.add(key=key, value=value.replace("[8, 8]", str(size)))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match=f"prepares images to {size[0]}x{size[1]}x3, but takes 8x8x3"):
        runtime.open(tmp_path / "m.onnx")


def test_an_engine_that_answers_wrong_is_an_error_before_the_first_answer(folder, tmp_path):
    """As one whose rewrites are wrong; here the file's weights are others than those its answer was made with."""
    content = (folder / "m.onnx").read_bytes()
    bias = artifact().weights["classifier.bias"]
    (tmp_path / "m.onnx").write_bytes(content.replace(bias.tobytes(), (bias + np.float32(0.5)).tobytes()))
    net = runtime.open(tmp_path / "m.onnx")
    for _ in range(2):  # the second answer is as wrong as the first
        with pytest.raises(AnswerError, match=r"m\.onnx: onnxruntime gives a wrong answer on the probe image, off by"):
            net.logits(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_safetensors_is_judged_by_the_graph_as_it_is_written(folder, monkeypatch):
    from smallcnn.engines import engine as engines

    right = engines.ENGINES["onnxruntime"]

    def wrong(loadable, threads):
        session = right(loadable, threads)
        return replace(session, run=lambda batch: {"logits": session.run(batch)["logits"] * np.float32(1.001)})

    monkeypatch.setitem(engines.ENGINES, "onnxruntime", wrong)
    with pytest.raises(AnswerError, match=r"m\.safetensors: onnxruntime gives a wrong answer .*, off by 1\.0e-03"):
        runtime.open(folder / "m.safetensors").logits(np.zeros((1, 8, 8, 3), np.uint8))


def test_classify_takes_a_path_bytes_an_image_and_an_array(folder, tmp_path):
    net = runtime.open(folder / "m.onnx")
    Image.new("RGB", (8, 8), COLOURS["red"]).save(tmp_path / "red.png")
    image = Image.open(tmp_path / "red.png")
    pictures = [tmp_path / "red.png", str(tmp_path / "red.png"), (tmp_path / "red.png").read_bytes(), image,
                np.asarray(image)]  # fmt: skip
    answers = net.classify(pictures)
    assert all(answer == answers[0] for answer in answers)
    labels, probabilities = zip(*answers[0].top5, strict=True)
    assert set(labels) == set(LABELS)
    assert sum(probabilities) == pytest.approx(1)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert (answers[0].label, answers[0].probability) == answers[0].top5[0]


def test_a_file_with_softmax_gives_the_same_probabilities(folder):
    picture = np.full((8, 8, 3), 90, np.uint8)
    (plain,), (soft,) = (runtime.open(folder / name).classify([picture]) for name in ("m.onnx", "p.onnx"))
    assert soft.label == plain.label
    assert soft.probability == pytest.approx(plain.probability, abs=1e-6)


@pytest.mark.parametrize("batch", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 9, 3), np.uint8),
                                   np.zeros((8, 8, 3), np.uint8)])  # fmt: skip
def test_a_batch_of_another_kind_is_refused(folder, batch):
    with pytest.raises(DataError, match=r"takes uint8 \(N, 8, 8, 3\), not"):
        runtime.open(folder / "m.onnx").logits(batch)


@pytest.mark.parametrize("picture", ["photo.jpg", b"bytes", np.zeros((8, 8, 3), np.uint8), Image.new("RGB", (8, 8))])
def test_one_picture_instead_of_a_list_is_refused(folder, picture):
    net = runtime.open(folder / "m.onnx")
    with pytest.raises(DataError, match=r"write classify\(\[image\]\)"):
        net.classify(picture)
    with pytest.raises(DataError, match=r"write answers\(\[image\]\)"):
        next(net.answers(picture))


def test_a_damaged_picture_is_an_error(folder):
    with pytest.raises(ImageError):
        runtime.open(folder / "m.onnx").classify([b"no image"])


def test_answers_come_in_order_with_the_errors_in_their_places(folder):
    """More images than a batch and than those decoded ahead, of different sizes."""
    net = runtime.open(folder / "m.onnx", threads=1)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8 + i, 9, 3), np.uint8) for i in range(40)]
    wanted = net.classify(images, top=2)
    broken = {0: b"no image", 17: b"", 39: b"GIF89a"}
    for batch, workers in ((1, 1), (16, None), (64, 3)):
        mixed = [broken.get(i, image) for i, image in enumerate(images)]
        answers = list(net.answers(mixed, batch=batch, workers=workers, top=2))
        assert len(answers) == 40
        for i, (got, alone) in enumerate(zip(answers, wanted, strict=True)):
            if i in broken:
                assert isinstance(got, ImageError)
            else:
                assert [label for label, _ in got.ranked] == [label for label, _ in alone.ranked]
                assert got.probability == pytest.approx(alone.probability, abs=1e-6)
    assert [type(one) for one in net.answers([b"", b""])] == [ImageError, ImageError]
    assert list(net.answers([])) == []


def test_answers_needs_a_list_and_whole_numbers_when_it_is_called(folder):
    net = runtime.open(folder / "m.onnx")
    for images in ((one for one in [b""]), {b""}, {"a": b""}, None, 3):
        with pytest.raises(
            DataError, match=r"answers takes a list of images, not a .*; write list\(\.\.\.\) around it"
        ):
            net.answers(images)
    for name, value in (("batch", 0), ("batch", -1), ("batch", 1.5), ("workers", -1), ("top", 0), ("top", None)):
        with pytest.raises(DataError, match=f"{name} must be a whole number of at least 1, not {value}"):
            net.answers([b""], **{name: value})


def test_threads_end_when_the_answers_are_not_all_taken(folder):
    net = runtime.open(folder / "m.onnx")
    answers = net.answers([np.zeros((9, 9, 3), np.uint8)] * 500, workers=4)
    next(answers)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    answers.close()
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("decode")]:
        thread.join(10)
        assert not thread.is_alive()


def test_an_answer_that_is_not_finite_stands_in_its_place(tmp_path):
    """Weights that overflow float32 on a white image and not on a black one."""
    made = artifact()
    weights = {name: 9 * np.abs(value) for name, value in made.weights.items()}
    weights |= {name: np.zeros_like(value) for name, value in weights.items() if name.endswith(("bias", "_mean"))}
    weights["classifier.weight"][:] = 3e38
    plain = replace(made.preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3)
    net = runtime.of(replace(made, weights=weights, preprocessing=plain), threads=1)
    white, black = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    answers = list(net.answers([black, white, black]))
    assert [type(one) for one in answers] == [Prediction, AnswerError, Prediction]
    assert str(answers[1]) == "tiny: its answer is not a finite number; the model is broken"


def test_what_is_for_classifiers_says_so():
    model = artifact()
    net = runtime.of(replace(model, task=Attributes(LABELS, {"hue": ("red", "blue")})), threads=1)
    picture = np.full((8, 8, 3), 90, np.uint8)
    with pytest.raises(GraphError, match="classify is for classifiers, not for attributes"):
        net.classify([picture])
    (answer,) = net.answers([picture])
    values = 1 / (
        1 + np.exp(-reference.answer(model.graph, model.weights, model.preprocessing.normalise(picture[None])))
    )
    np.testing.assert_allclose([dict(answer.ranked)[label] for label in LABELS], values[0], atol=1e-5)
    assert answer.chosen["hue"] in answer.present


def test_foreign_and_damaged_files_are_refused_in_one_line(folder, tmp_path):
    whole = (folder / "m.onnx").read_bytes()
    foreign = onnx.to_onnx(artifact())
    del foreign.metadata_props[:]
    files = {
        "half.onnx": whole[: len(whole) // 2],
        "empty.onnx": b"",
        "text.onnx": b"hello",
        "foreign.onnx": foreign.SerializeToString(),
        "model.pt": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError) as caught:
            runtime.open(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="no such file"):
        runtime.open(tmp_path / "absent.onnx")


def test_wrong_engine_and_threads(folder):
    with pytest.raises(SmallcnnError, match="no engine 'onxruntime'; closest: onnxruntime"):
        runtime.open(folder / "m.onnx", engine="onxruntime")
    with pytest.raises(SmallcnnError, match="threads must be at least 1"):
        runtime.open(folder / "m.onnx", threads=0)
    with pytest.raises(SmallcnnError, match=r"'torch' does not run \.onnx files; use onnxruntime or openvino"):
        runtime.open(folder / "m.onnx", engine="torch")
    with pytest.raises(SmallcnnError, match=r"compile it first: smallcnn compile .*m\.onnx --out .*m\.so"):
        runtime.open(folder / "m.onnx", engine="compiled")


def test_running_a_model_imports_no_torch(folder):
    code = f"""
import sys, numpy, smallcnn
for file in ("m.onnx", "m.safetensors"):
    smallcnn.open({str(folder)!r} + "/" + file).classify([numpy.zeros((9, 9, 3), numpy.uint8)])
sys.exit(", ".join({{"torch", "kornia", "sklearn", "matplotlib"}} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
