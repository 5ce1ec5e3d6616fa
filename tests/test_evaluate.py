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
from smallcnn.model.store import save
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
