"""`smallcnn quantize`: what calibrates and what judges, the gate, and bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import networks
from artifacts import artifact, colour_photos
from smallcnn.cli.main import main
from smallcnn.errors import AccuracyError, DataError, FileError, GraphError, ImageError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.quantizing import quantize
from smallcnn.reference import integer
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.detection import Detection
from smallcnn.transform.quantize import Settings


@pytest.fixture
def photos(tmp_path):
    return colour_photos(tmp_path / "photos")


def fragile():
    """A network that 8 bits ruin: the weights of a channel that is always 0 take the whole range of the classifier."""
    model = artifact(seed=12)  # its float answers differ between images
    weights = {name: value.copy() for name, value in model.weights.items()}
    weights["block.bn.bias"][0] = -1e4
    weights["classifier.weight"][:, 0] = 1e5
    weights["classifier.bias"][:] = 0
    return replace(model, weights=weights)


def test_some_images_calibrate_and_the_others_judge(photos, tmp_path):
    model = artifact()
    found = quantize(model, photos, tmp_path / "q.safetensors", images=10, max_drop=100)
    assert (found.report.images, found.judged, found.part) == (10, 14, "all")
    assert found.score == "top1"
    assert found.drop == pytest.approx(100 * (found.before - found.after))
    stored = load(tmp_path / "q.safetensors")
    assert stored.graph == found.model.graph
    assert stored.graph.integer
    assert stored.facts["quantized"]["images"] == 10
    # at most half of the images calibrate
    assert quantize(model, photos, tmp_path / "q.safetensors", max_drop=100).judged == 12


def test_a_detector(tmp_path):
    """Codes and scores are bytes up to the predictors; decoding stays float. Without boxes only agreement is judged."""
    graph = networks.detector(threshold=0.1)
    model = Model(graph, networks.random_weights(graph), Detection(("a", "b", "c", "d")), Preprocessing((16, 24)))
    photos = colour_photos(tmp_path / "photos")
    made = quantize(model, photos, tmp_path / "q.safetensors", images=8, anyway=True)
    assert made.score is None
    assert made.agreement > 0.5
    assert {made.model.graph[name].tensor.number for name in made.model.graph["detect.found"].inputs} == {"float32"}
    layers = [node for node in made.model.graph if isinstance(node.op, ops.Conv)]
    assert {made.model.graph[node.inputs[0]].tensor.number for node in layers} == {"uint8"}


def test_a_set_with_splits_calibrates_on_train_and_judges_on_test(tmp_path):
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        colour_photos(tmp_path / "photos" / split, per_class=count, seed=count)
    found = quantize(artifact(), tmp_path / "photos", tmp_path / "q.safetensors", max_drop=100)
    assert (found.report.images, found.judged, found.part) == (18, 9, "test")


def test_the_scores_are_those_of_the_definition(photos, tmp_path):
    found = quantize(artifact(), photos, tmp_path / "q.safetensors", max_drop=100)
    made = found.model
    judged = sorted(photos.glob("*/*.png"))
    classes = sorted(path.name for path in photos.iterdir())
    names = set()
    right = 0
    images = [made.preprocessing.prepare(path).pixels for path in judged]
    logits = integer.run(made.graph, made.weights, made.preprocessing.normalise(np.stack(images)))["logits"]
    for path, answer in zip(judged, logits.argmax(1), strict=True):
        names.add(path.parent.name)
        right += classes[answer] == path.parent.name
    assert names == set(classes)
    # half of the images judge: the score of all is within what the other half can change
    assert abs(right / 24 - found.after) <= 0.5


def test_a_ruined_network_is_refused_unless_asked_for(photos, tmp_path):
    out = tmp_path / "q.safetensors"
    model = fragile()
    unlabelled = tmp_path / "all"
    unlabelled.mkdir()
    for i, path in enumerate(sorted(photos.glob("*/*.png"))):
        shutil.copy(path, unlabelled / f"{i}.png")
    with pytest.raises(AccuracyError, match=r"of the answers agree .* in classifier.*--mixed.*--anyway"):
        quantize(model, unlabelled, out)
    assert not out.exists()
    found = quantize(model, unlabelled, out, anyway=True)
    assert found.agreement < 0.9
    assert (found.before, found.after, found.drop) == (None, None, None)
    assert found.doubt == "the images have no labels"
    assert out.exists()
    mixed = quantize(model, unlabelled, out, mixed=True)
    assert "classifier" in mixed.kept_float
    assert mixed.agreement >= 0.9
    assert load(out).graph["classifier"].op.number == "float32"


def test_classes_the_network_does_not_know_leave_the_agreement(photos, tmp_path):
    (photos / "red").rename(photos / "purple")
    found = quantize(artifact(), photos, tmp_path / "q.safetensors", anyway=True)
    assert found.score is None
    assert "does not know purple" in found.doubt


def test_attributes_have_their_own_score(tmp_path):
    photos = colour_photos(tmp_path / "photos")
    rows = [f"{path.relative_to(photos)},{path.parent.name == 'red':d},{path.parent.name == 'blue':d},{i % 2}"
            for i, path in enumerate(sorted(photos.glob("*/*.png")))]  # fmt: skip
    (photos / "attributes.csv").write_text("\n".join(["file,blue,green,red", *rows]))
    model = replace(artifact(), task=Attributes(("blue", "green", "red")))
    found = quantize(model, photos / "attributes.csv", tmp_path / "q.safetensors", anyway=True)
    assert found.score == "mean_average_precision"
    assert found.before is not None


def test_bad_input_is_one_line_each(photos, tmp_path):
    out = tmp_path / "q.safetensors"
    model = artifact()
    with pytest.raises(FileError, match=r"name ends in \.safetensors"):
        quantize(model, photos, tmp_path / "q.onnx")
    save(model, tmp_path / "m.safetensors")
    with pytest.raises(FileError, match=r"m\.safetensors: would replace the file that it is made from"):
        quantize(tmp_path / "m.safetensors", photos, tmp_path / "m.safetensors")
    endless = {name: -value if name.endswith("running_var") else value for name, value in model.weights.items()}
    with pytest.raises(GraphError, match="gives numbers that are not finite"):
        quantize(replace(model, weights=endless), photos, out)
    black = tmp_path / "black"
    black.mkdir()
    with pytest.raises(ImageError, match="no images"):
        quantize(model, black, out)
    for i in range(4):
        Image.new("RGB", (9, 9)).save(black / f"{i}.png")
    with pytest.raises(DataError, match="all pixels of each are equal"):
        quantize(model, black, out)
    single = tmp_path / "single"
    single.mkdir()
    Image.new("RGB", (9, 9)).save(single / "1.png")
    with pytest.raises(DataError, match="1 images: some are needed to calibrate on, and others to judge on"):
        quantize(model, single, out)
    made = quantize(model, photos, out, anyway=True)
    with pytest.raises(GraphError, match="already quantized"):
        quantize(made.model, photos, out)
    g = Builder(input=(8, 8, 3))
    x = g.local_response_norm(
        g.conv(g.input, 4, kernel=3, name="conv"), size=3, alpha=1.0, beta=0.75, bias=1.0, name="lrn"
    )
    normed = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="normed")
    with pytest.raises(GraphError, match="lrn: a local_response_norm has no integer form"):
        quantize(artifact(normed), photos, out)
    kept = quantize(artifact(normed), photos, out, settings=Settings(keep_float=("lrn",)), anyway=True)
    assert kept.kept_float == ("lrn",)
    assert quantize(artifact(normed), photos, out, mixed=True, max_drop=100).kept_float == ("lrn",)


def test_the_command_prints_the_contract(photos, tmp_path, capsys):
    save(artifact(), tmp_path / "m.safetensors")
    call = [
        "quantize",
        str(tmp_path / "m.safetensors"),
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "q.safetensors"),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*call, "--max-drop", "100", "--json"])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert {"top1_before", "top1_after", "agreement", "bytes_before", "bytes_after", "layers"} <= record.keys()
    assert record["bytes_after"] == (tmp_path / "q.safetensors").stat().st_size
    assert [layer["name"] for layer in record["layers"]] == ["input", "stem.act", "block.act", "pool", "classifier"]
    with pytest.raises(SystemExit) as ended:
        main([*call, "--max-drop", "100"])
    assert ended.value.code == 0
    assert "agreement with the float network" in capsys.readouterr().out
    save(fragile(), tmp_path / "m.safetensors")
    (photos / "red").rename(photos / "purple")
    with pytest.raises(SystemExit) as ended:
        main(call)
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.err.startswith("smallcnn: only ")
    assert captured.err.count("\n") == 1


def test_every_operator_goes_through_the_engine(tmp_path, photos):
    """The operators that ONNX Runtime computes one by one are those of the definition."""
    from smallcnn.engines.operators import Operators
    from smallcnn.transform.quantize import ready
    from smallcnn.transform.quantize.values import by_definition, walk

    graph, weights = ready(networks.every_op(), networks.random_weights(networks.every_op()))
    images = networks.images(graph, 20)  # more than are computed together
    for (node, want), (_, got) in zip(
        walk(graph, weights, images, by_definition), walk(graph, weights, images, Operators(graph)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max(), err_msg=node.name)
