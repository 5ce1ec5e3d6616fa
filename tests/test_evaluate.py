import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from artifacts import COLOURS, LABELS, artifact, colour_photos
from smallcnn import runtime
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.evaluate import evaluate
from smallcnn.ir.builder import Builder
from smallcnn.model.store import save
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.labels import match_labels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(artifact(), path)
    return path


@pytest.fixture
def photos(tmp_path):
    return colour_photos(tmp_path / "photos")


def test_counts_what_classify_says(model, photos):
    net = runtime.open(model)
    result = evaluate(net, photos)
    truth = {path: path.parent.name for path in photos.glob("*/*.png")}
    said = {path: net.classify([path])[0].label for path in truth}
    expected = confusion_matrix(list(truth.values()), [said[path] for path in truth], labels=sorted(COLOURS))
    np.testing.assert_array_equal(result.metrics.confusion, expected)
    assert (result.part, result.metrics.images, result.metrics.top5) == ("all", 24, 1.0)
    assert result.metrics.top1 == pytest.approx(np.trace(expected) / 24)


def test_undecodable_pictures_are_named_and_left_out(model, photos):
    (photos / "red" / "bad.png").write_bytes((photos / "red" / "0.png").read_bytes()[:80])
    result = evaluate(runtime.open(model), photos)
    assert result.metrics.images == 24
    assert list(result.skipped) == ["red/bad.png"]


def test_a_network_is_judged_on_what_it_has_not_learned(tmp_path, photos):
    fingerprint = open_source(photos).fingerprint
    save(artifact(data={"fingerprint": fingerprint, "seed": 3, "val_fraction": 0.25}), tmp_path / "trained.safetensors")
    result = evaluate(runtime.open(tmp_path / "trained.safetensors"), photos)
    assert (result.part, result.metrics.images) == ("val", 6)  # a quarter of 8, three times
    assert evaluate(runtime.open(tmp_path / "trained.safetensors"), photos, part="train").metrics.images == 18


def test_deleting_a_picture_after_training_does_not_bring_the_others_into_play(tmp_path, photos):
    facts = {"fingerprint": open_source(photos).fingerprint, "name": "photos", "seed": 0, "val_fraction": 0.25}
    save(artifact(data=facts), tmp_path / "trained.safetensors")
    (photos / "red" / "0.png").unlink()
    result = evaluate(runtime.open(tmp_path / "trained.safetensors"), photos)
    assert result.part == "val"
    assert "have changed since" in result.doubt
    others = evaluate(runtime.open(tmp_path / "trained.safetensors"), colour_photos(tmp_path / "others", per_class=5))
    assert others.part == "all"
    assert "trained on another data set" in others.doubt


def test_facts_of_another_kind_are_no_obstacle(tmp_path, photos):
    save(artifact(data="my garden"), tmp_path / "m.safetensors")
    assert evaluate(runtime.open(tmp_path / "m.safetensors"), photos).part == "all"


def test_declared_parts_win(model, tmp_path):
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        colour_photos(tmp_path / "set" / part, count)
    net = runtime.open(model)
    assert evaluate(net, tmp_path / "set").part == "test"
    sizes = {part: evaluate(net, tmp_path / "set", part=part).metrics.images for part in ("train", "val", "all")}
    assert sizes == {"train": 15, "val": 9, "all": 30}


def test_labels_must_match(model, photos):
    (photos / "red").rename(photos / "crimson")
    with pytest.raises(
        DataError, match="labels do not match: the network does not know crimson; the data lacks its red"
    ):
        evaluate(runtime.open(model), photos)


def test_labels_are_matched_by_name():
    assert match_labels(("c", "a"), ("a", "b", "c")).tolist() == [2, 0]


def test_a_folder_with_one_of_the_classes(model, photos):
    for name in ("green", "blue"):
        shutil.rmtree(photos / name)
    confusion = evaluate(runtime.open(model), photos).metrics.confusion
    assert confusion.sum(axis=1).tolist() == [0, 0, 8]  # blue, green, red


def test_scores_have_no_loss_in_the_json(smallcnn, tmp_path, photos):
    save(replace(artifact(), task=Classification(LABELS, "none")), tmp_path / "m.safetensors")
    code, out, _ = smallcnn("evaluate", tmp_path / "m.safetensors", "--data", photos, "--json")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    assert (code, json.loads(out, parse_constant=refuse)["loss"]) == (0, None)


def test_a_broken_network_is_refused(refused, tmp_path, photos):
    broken = artifact()
    weights = {name: np.full_like(value, np.nan) for name, value in broken.weights.items()}
    save(replace(broken, weights=weights), tmp_path / "m.safetensors")
    said = refused("evaluate", tmp_path / "m.safetensors", "--data", photos, "--json")
    assert said.endswith("m.safetensors: stem.conv.weight has values that are infinite or not numbers; "
                         "the model is broken")  # fmt: skip


def test_an_unknown_part_is_an_error(model, photos):
    with pytest.raises(DataError, match="has no split 'test'; it has train, val, all"):
        evaluate(runtime.open(model), photos, part="test")


def test_a_network_trained_on_folders_named_by_wnid():
    assert match_labels(("n01440764", "n01443537"), ("n01440764", "n01443537")).tolist() == [0, 1]
    assert match_labels(("n01443537",), ("tench", "goldfish")).tolist() == [1]


@pytest.fixture
def table(tmp_path):
    """Nine images of three colours with a table: colour is a question of three choices, warm and dark yes or no."""
    photos = colour_photos(tmp_path / "photos", per_class=3)
    lines = ["file,colour,warm,dark"]
    for i, path in enumerate(sorted(photos.glob("*/*.png"))):
        colour = path.parent.name
        warm = "" if i == 4 else "yes" if colour == "red" else "no"
        path.rename(photos / f"{colour}{path.name}")
        lines.append(f"{colour}{path.name},{colour},{warm},{'yes' if i % 2 else 'no'}")
    for colour in COLOURS:
        (photos / colour).rmdir()
    (photos / "labels.csv").write_text("\n".join(lines) + "\n")
    return photos


def attributes_model(tmp_path):
    """A network of five logits for the labels of the table."""
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3)
    graph = g.graph(g.dense(g.global_pool(x), 5), features=x, name="five")
    labels = ("dark", "colour: red", "warm", "colour: blue", "colour: green")
    colours = ("colour: blue", "colour: green", "colour: red")
    path = tmp_path / "m.safetensors"
    made = artifact(graph)
    save(replace(made, task=Attributes(labels, {"colour": colours})), path)
    return path


def test_attributes_are_scored_by_average_precision(smallcnn, tmp_path, table):
    """scikit-learn's average precision of what the network answers to each image, in the network's order of labels."""
    metrics = pytest.importorskip("sklearn.metrics")
    path = attributes_model(tmp_path)
    code, out, err = smallcnn("evaluate", path, "--data", table, "--split", "all", "--json")
    assert code == 0, err
    said = json.loads(out)
    net = runtime.open(path)
    files = [line.split(",") for line in (table / "labels.csv").read_text().splitlines()[1:]]
    answers = [dict(answer.ranked) for answer in net.answers([table / row[0] for row in files])]
    wanted = {}
    for label in net.labels:
        if label.startswith("colour: "):
            true = [label == f"colour: {row[1]}" for row in files]
        else:
            true = [row[2 if label == "warm" else 3] for row in files]
        known = [i for i, value in enumerate(true) if value != ""]
        right = [true[i] in (True, "yes") for i in known]
        wanted[label] = metrics.average_precision_score(right, [answers[i][label] for i in known])
    assert said["average_precision"] == pytest.approx(wanted)
    assert said["mean_average_precision"] == pytest.approx(np.mean(list(wanted.values())))
    assert (said["images"], said["labels"], said["split"]) == (9, list(net.labels), "all")
    assert "top1" not in said
    _, out, _ = smallcnn("evaluate", path, "--data", table, "--split", "all")
    assert f"mean average precision {np.mean(list(wanted.values())):.2%}   loss " in out


def test_a_label_that_no_image_has_is_null_in_json(smallcnn, tmp_path, table):
    """JSON has no NaN, and the mean is over the other labels."""
    path, rows = attributes_model(tmp_path), (table / "labels.csv").read_text()
    (table / "labels.csv").write_text(rows.replace("yes", "no").replace("True", "no"))
    code, out, err = smallcnn("evaluate", path, "--data", table, "--split", "all", "--json")
    assert code == 0, err
    assert "NaN" not in out
    said = json.loads(out)
    known = [value for value in said["average_precision"].values() if value is not None]
    assert said["average_precision"]["warm"] is None
    assert said["mean_average_precision"] == pytest.approx(np.mean(known))


def test_predict_of_attributes(smallcnn, tmp_path, table):
    path = attributes_model(tmp_path)
    image = table / "red0.png"
    ((record,), words, rows) = (
        json.loads(smallcnn("predict", path, image, "--json", "--top", 2)[1]),
        smallcnn("predict", path, image)[1],
        smallcnn("predict", path, image, "--csv", "--top", 5)[1].splitlines(),
    )
    (answer,) = runtime.open(path).answers([image])
    (best,) = answer.chosen.items()
    assert record["chosen"] == {"colour": {"label": best[1][0], "probability": pytest.approx(best[1][1])}}
    assert [one["label"] for one in record["present"]] == [label for label, _ in answer.present]
    assert [one["label"] for one in record["top"]] == [label for label, _ in answer.ranked[:2]]
    assert words == f"{image}: " + ", ".join(f"{label} {value:.1%}" for label, value in answer.present) + "\n"
    assert rows[0].startswith("file,label,probability,label 2,")
    assert rows[1].split(",")[1::2] == [label for label, _ in answer.ranked]


def test_a_network_and_data_for_different_tasks(refused, tmp_path, table, model):
    assert "labels do not match: the network is for classification, the data for attributes" in refused(
        "evaluate", model, "--data", table
    )
    assert "a confusion matrix is for classifiers, not for attributes" in refused(
        "evaluate", attributes_model(tmp_path), "--data", table, "--plot", tmp_path / "c.png"
    )
    assert "analyze is for classifiers, not for attributes" in refused(
        "analyze", attributes_model(tmp_path), "--data", table
    )
