"""`smallcnn compress`: rounds of pruning and training, what judges, resuming, the gate, and bad input."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import squares
from artifacts import artifact, colour_photos
from networks import random_weights
from smallcnn.compress.budget import Budget
from smallcnn.compress.integers import Int8
from smallcnn.compress.latency import milliseconds
from smallcnn.compress.pipeline import compress
from smallcnn.compress.pruning import Prune
from smallcnn.compress.sharing import Share
from smallcnn.compress.workshop import Workshop
from smallcnn.cost.profile import profile
from smallcnn.data.sources import open_source
from smallcnn.errors import AccuracyError, DataError, FileError, GraphError
from smallcnn.evaluate import evaluate
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.model.model import Model
from smallcnn.model.store import content, load, save
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.detection import Detection
from smallcnn.transform.share.sharing import Sharing

HALF = Prune(budget=Budget.parse("0.5x"), step=2, rounds=2, epochs=3)


def network(width=8):
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, width, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 2 * width, kernel=1, name="block1")
    x = g.conv_bn(x, 2 * width, kernel=1, name="block2")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="small")


@pytest.fixture
def photos(tmp_path):
    return colour_photos(tmp_path / "photos", per_class=20)


def test_rounds_of_pruning_and_training(photos, tmp_path):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    found = compress(model, photos, out, [HALF], max_drop=100, threads=1, seed=3)
    assert [row.name for row in found.rows] == [
        "original", "pruned 1 of 2", "fine-tuned 1 of 2, 1 epoch", "pruned 2 of 2", "fine-tuned 2 of 2, 2 epochs"
    ]  # fmt: skip
    whole, rounds = profile(model.graph).mult_adds, [row.mult_adds for row in found.rows]
    assert rounds[0] == whole
    assert rounds[1] == rounds[2] <= whole / 2**0.5
    assert rounds[3] == rounds[4] <= whole / 2
    stored = load(out)
    assert profile(stored.graph).mult_adds == rounds[4]
    assert stored.facts["compressed"]["prune"]["budget"] == {"measure": "mult_adds", "amount": 0.5, "relative": True}
    judged = evaluate(out, photos)
    assert (judged.part, judged.images) == (found.part, found.judged) == ("val", 12)
    assert judged.scores[found.score] == found.rows[-1].score
    # the images that judge are those of the model that came in, for whatever seed
    assert judged.split.names == open_source(photos).splits["val"].names
    assert found.drop == pytest.approx(100 * (found.rows[0].score - found.rows[-1].score))
    assert {width.layer: width.after for width in found.widths}.items() <= {
        node.name: node.shape[-1] for node in stored.graph
    }.items()
    assert not out.with_name("out_steps").exists()


def test_an_interrupted_run_resumes(photos, tmp_path, monkeypatch):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    trained, made = Workshop.fine_tuned, []

    def interrupted(shop, model, epochs):
        made.append(model.graph)
        if len(made) == 2:
            raise KeyboardInterrupt
        return trained(shop, model, epochs)

    monkeypatch.setattr(Workshop, "fine_tuned", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compress(model, photos, out, [HALF], max_drop=100, threads=1)
    assert not out.exists()
    with pytest.raises(DataError, match=r"another run \(prune differ"):
        compress(model, photos, out, [replace(HALF, criterion="l2")], max_drop=100, threads=1)
    with pytest.raises(DataError, match=r"another run \(weights differ"):
        compress(artifact(network(), seed=1), photos, out, [HALF], max_drop=100, threads=1)
    found = compress(model, photos, out, [HALF], max_drop=100, threads=1)
    assert len(made) == 3  # the first round was not repeated
    assert made[1] == made[2] == found.model.graph


def test_the_gate(photos, tmp_path):
    """What is refused is not written; its results are kept, so that it can be written anyway."""
    model, out = artifact(network()), tmp_path / "out.safetensors"
    step = replace(HALF, criterion="random", epochs=0, rounds=1)
    refused = r"top-1 drops from .*; at most -100 are allowed; most channels went from \w+\.conv \(.* --anyway"
    with pytest.raises(AccuracyError, match=refused):
        compress(model, photos, out, [step], max_drop=-100, threads=1)
    assert not out.exists()
    (kept,) = tmp_path.glob("out_steps/*pruned.safetensors")
    graph = load(kept).graph
    compress(model, photos, out, [step], max_drop=-100, threads=1, anyway=True)
    assert load(out).graph == graph


@pytest.mark.parametrize("criterion", ["l1", "reconstruction", "taylor"])
def test_a_detector_keeps_its_predictors(tmp_path, criterion):
    graph = squares.detector(2)
    model = Model(graph, random_weights(graph), Detection(("red", "green")), Preprocessing((48, 48), fit="stretch"))
    step = Prune(budget=Budget.parse("0.6x"), criterion=criterion, rounds=1, epochs=0)
    found = compress(model, squares.squares(), tmp_path / "out.safetensors", [step], max_drop=100, threads=1)
    assert found.score == "map"
    assert found.model.graph.results == graph.results
    assert not {width.layer for width in found.widths} & {"code0.conv", "code1.conv", "score0.conv", "score1.conv"}


def test_a_network_of_attributes(photos, tmp_path):
    """Judged by its own score, trained without a teacher, with the answers that a table knows."""
    rows, warm = ["file,warm,colour"], {"red": "yes", "green": "", "blue": "no"}
    for path in sorted(photos.rglob("*.png")):
        rows.append(f"{path.relative_to(photos)},{warm[path.parent.name]},{path.parent.name}")
    (photos / "labels.csv").write_text("\n".join(rows))
    colours = ("colour: blue", "colour: green", "colour: red")
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.conv_bn(g.input, 16, kernel=3, name="stem"), 16, kernel=1, name="block1")
    graph = g.graph(g.dense(g.global_pool(x), 4, name="classifier"), features=x, name="small")
    model = replace(artifact(graph), task=Attributes(("warm", *colours), {"colour": colours}))
    steps = [
        Prune(budget=Budget.parse("0.6x"), step=2, epochs=1), Share(sharing=Sharing(bits=4), epochs=1), Int8()
    ]  # fmt: skip
    found = compress(model, photos / "labels.csv", tmp_path / "out.safetensors", steps, max_drop=100, threads=1)
    assert found.score == "mean_average_precision"
    assert found.model.graph.integer
    assert load(tmp_path / "out.safetensors").task == model.task


def test_a_budget_of_parameters(photos, tmp_path):
    model = artifact(network(64))
    fewer = Prune(budget=Budget.parse("5k", "parameters"), criterion="l2", step=1, rounds=1, epochs=0)
    found = compress(model, photos, tmp_path / "out.safetensors", [fewer], max_drop=100, threads=1)
    assert profile(found.model.graph).parameters <= 5000
    assert found.rows[0].milliseconds == milliseconds(model.graph)
    zipped = tmp_path / "model.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", content(model))
    with zipfile.ZipFile(zipped) as archive:
        (entry,) = archive.infolist()
    assert found.rows[0].zipped_bytes == pytest.approx(entry.compress_size, abs=16)  # but for the ends of the stream


def test_budgets():
    assert Budget.parse("1.5M", "parameters") == Budget("parameters", 1.5e6, relative=False)
    assert Budget.parse("3 ms", "latency") == Budget("latency", 3, relative=False)
    assert str(Budget.parse(".5x")) == "0.5x Mult-Adds"
    bad = {"half": "mult_adds", "3ms": "mult_adds", "3": "latency", "1x": "latency", "0": "parameters"}
    for text, measure in bad.items():
        with pytest.raises(DataError, match="budget"):
            Budget.parse(text, measure)
    graph = network()
    macs = profile(graph).mult_adds
    np.testing.assert_allclose(Budget("mult_adds", 0.25, relative=True).limits(graph, 2), [macs / 2, macs / 4])
    rounds = [len(Budget("mult_adds", share, relative=True).limits(graph)) for share in (0.9, 0.5, 0.35, 0.25, 0.1)]
    assert rounds == [1, 1, 2, 2, 3]  # one for each halving


def test_bad_input_is_one_line(photos, tmp_path):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    with pytest.raises(FileError, match=r"ends in \.safetensors"):
        compress(model, photos, tmp_path / "out.onnx", [HALF])
    with pytest.raises(DataError, match="no step"):
        compress(model, photos, out, [])
    with pytest.raises(DataError, match="within the budget"):
        compress(model, photos, out, [replace(HALF, budget=Budget("mult_adds", 1e9, relative=False))])
    # refused before the first result: nothing to resume
    with pytest.raises(GraphError, match=r"cannot reach .* Mult-Adds: .* is the least"):
        compress(model, photos, out, [replace(HALF, budget=Budget.parse("0.001x"))])
    with pytest.raises(DataError, match="not empty"):
        compress(model, photos, out, [HALF], folder=photos)
    with pytest.raises(DataError, match="no criterion"):
        replace(HALF, criterion="best")
    with pytest.raises(DataError, match="sparsity is trained for the criterion norm"):
        replace(HALF, sparsity=0.01)
    quantized = compress(model, photos, out, [Int8()], max_drop=100, threads=1).model
    with pytest.raises(GraphError, match=r"^small is quantized; compress the float model that it was made from"):
        compress(quantized, photos, tmp_path / "d.safetensors", [Share(sharing=Sharing(bits=4), epochs=0)])
    (photos / "red").rename(photos / "purple")
    with pytest.raises(DataError, match="labels must be those of the network"):
        compress(model, photos, tmp_path / "c.safetensors", [HALF])


def test_the_command_prints_the_contract(photos, tmp_path, smallcnn, refused):
    save(artifact(network()), tmp_path / "m.safetensors")
    call = ["compress", tmp_path / "m.safetensors", "--data", photos, "--out", tmp_path / "o.safetensors"]
    rest = ["--step", 2, "--rounds", 1, "--fine-tune", 0, "--max-drop", 100, "--threads", 1]
    code, text, err = smallcnn(*call, "--prune", "0.5x", "--criterion", "l2", *rest, "--json")
    assert code == 0, err
    record = json.loads(text)
    names = ("top1", "bytes", "mult_adds", "parameters", "milliseconds")
    assert {f"{name}_{when}" for name in names for when in ("before", "after")} <= record.keys()
    assert [step["name"] for step in record["steps"]] == ["original", "pruned"]
    sizes = [(tmp_path / name).stat().st_size for name in ("m.safetensors", "o.safetensors")]
    assert [record["bytes_before"], record["bytes_after"]] == sizes
    assert [step["bytes"] for step in record["steps"]] == sizes
    assert {layer["layer"] for layer in record["layers"]} <= {"stem.conv", "block1.conv", "block2.conv"}
    code, text, err = smallcnn(
        *call, "--parameters", "300", "--criterion", "norm", "--sparsity", "0.01", *rest, "--fine-tune", 1
    )
    assert code == 0
    assert "on 12 images (val)" in text
    assert [line.partition(":")[0] for line in err.splitlines() if "Mult-Adds" in line] == [
        "original", "trained for sparsity, 1 epoch", "pruned", "fine-tuned, 1 epoch"
    ]  # fmt: skip
    assert refused(*call).startswith("no step of compression")
    assert "give one of them" in refused(*call, "--prune", "0.5x", "--latency", "1ms")
    assert "takes no --sparse" in refused(*call, "--sparse", "0.5", "--size", "9kB")
    assert "with zeros, give bits" in refused(*call, "--sparse", "0.5", "--share", "9kB")
    assert refused(*call, "--share", "4bit", "--criterion", "norm").startswith("--criterion is for removing channels")
    assert refused(*call, "--share", "4bit", "--step", "8").startswith("--step is for removing channels")
    assert refused(*call, "--int8", "--rounds", "2") == "--rounds is for --prune, --parameters, --latency or --sparse"


def test_sensitivity_judges_the_network_without_some_channels(photos, tmp_path, smallcnn, refused):
    model = artifact(network())
    # only the channel of block2 that scores highest leads to an answer other than the first
    weights = {name: value.copy() for name, value in model.weights.items()}
    weights["classifier.weight"][:, :15] = 0
    weights["block2.conv.weight"][15] *= 100
    model = replace(model, weights=weights)
    save(model, tmp_path / "m.safetensors")
    call = ["compress", tmp_path / "m.safetensors", "--data", photos, "--sensitivity", "--criterion", "l2"]
    code, text, err = smallcnn(*call, "--plot", tmp_path / "plot.svg", "--json")
    assert code == 0, err
    record = json.loads(text)
    assert [(family["layers"], family["channels"]) for family in record["families"]] == [
        (["stem.conv"], 8), (["block1.conv"], 16), (["block2.conv"], 16)
    ]  # fmt: skip
    assert (record["part"], record["images"], record["shares"]) == ("val", 12, [0.25, 0.5, 0.75])
    # channels that nothing reads are not missed
    assert record["families"][2]["scores"] == [record["whole"]] * 3
    judged = evaluate(tmp_path / "m.safetensors", photos, part="val")
    assert record["whole"] == judged.scores["top1"]
    assert "block2.conv" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    code, text, _ = smallcnn(*call)
    assert code == 0
    assert "on 12 images (val)" in text
    assert "take no --out" in refused(*call, "--out", tmp_path / "o.safetensors")
    assert "needs --out FILE" in refused("compress", tmp_path / "m.safetensors", "--data", photos, "--prune", "0.5x")
