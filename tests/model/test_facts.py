"""Facts keep every key that a file has, those that they do not know too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallcnn.model import shipped, store
from smallcnn.model.facts import Facts, TrainedOn

RUN = {
    "model": "mobilenet_v1", "teacher": {"file": "/t", "digest": "d"}, "recipe": {"epochs": 3},
    "data": {
        "name": "photos", "fingerprint": "ab", "seed": 1, "val_fraction": 0.25, "skipped": 2, "left_out": {"files": 1},
        "cut": "ab:xx", "near_duplicates": {"images": 3}, "train_images": 18, "val_images": 6,
    },
    "epoch": 3, "val_top1": 0.75, "averaged": False, "device": "cpu", "bfloat16": False, "versions": {"torch": "2"},
}  # fmt: skip
"""What version 0.1 wrote after a run."""


def test_a_run_is_read():
    facts = Facts.from_json(RUN)
    assert facts.data == TrainedOn(
        name="photos", fingerprint="ab", seed=1, val_fraction=0.25, skipped=2, left_out={"files": 1}, cut="ab:xx",
        near_duplicates={"images": 3}, images={"train": 18, "val": 6},
    )  # fmt: skip
    assert (facts.scores, facts.epoch, facts.averaged, facts.other) == ({"top1": 0.75}, 3, False, {})
    assert facts.to_json() == RUN


@pytest.mark.parametrize("name", ["cifar10"])
def test_bundled_models_keep_theirs(name):
    stored = store.load(shipped.located(name)).facts
    assert Facts.from_json(stored).to_json() == stored
    assert Facts.from_json(stored).data is not None


@pytest.mark.parametrize("record", [
    {"data": "my garden"}, {"data": {"name": 5}}, {"data": {"name": "x", "planet": "earth"}}, {"epoch": "third"},
    {"recipe": None}, {"val_top1": None}, {"val_top1": "good"}, {"trained": False, "seed": 3}, {"note": [1, 2]},
], ids=str)  # fmt: skip
def test_facts_of_another_kind_are_kept(record):
    assert Facts.from_json(record).to_json() == record


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from([*RUN, "imported", "onnx", "trained", "start", "scores", "other", "images"]) | st.text()


@given(st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_any_object_survives(record):
    assert Facts.from_json(record).to_json() == record


def test_facts_keep_their_order():
    """Files of the same content have the same bytes, in every process: sets of names differ from one to the next."""
    names = ["train", "val", "test", "trainval", "minival", "holdout", "extra", "other"]
    data = {f"{name}_images": number for number, name in enumerate(names)}
    record = {"data": data} | {f"val_{name}": 0.5 for name in names}
    made = Facts.from_json(record)
    assert list(made.data.images) == names
    assert list(made.scores) == names
    assert list(made.to_json()["data"]) == list(data)
