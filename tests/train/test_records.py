"""Records of a run: their JSON keys stay, and those of a run started by an older version are read."""

import pytest

from networks import tiny
from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.tasks.classification import Classification
from smallcnn.train.epochs import Epoch, epochs_without_gain
from smallcnn.train.progress import Progress
from smallcnn.train.recipe import Recipe
from smallcnn.train.settings import Origin, Settings, TeacherFile

OLD_EPOCH = {
    "epoch": 1, "lr": 0.1, "train_loss": 1.5, "train_top1": 0.25, "val_loss": 1.0, "val_top1": 0.5, "val_top5": 1.0,
    "ema_val_loss": 1.25, "ema_val_top1": 0.75, "ema_val_top5": 1.0, "images_per_second": 10.0, "seconds": 2.0,
    "seconds_waiting_for_pictures": 0.5,
}  # fmt: skip
"""A line of log.jsonl, as version 0.1 wrote it."""


def settings(**changes):
    made = {
        "graph": tiny(), "preprocessing": Preprocessing((8, 8)), "task": Classification(("a", "b", "c")),
        "start": Origin(model="m", weights="w", new_last_layer=True, about={"val_top1": 0.5}),
        "teacher": TeacherFile(file="/t.onnx", digest="d"), "source": "/photos", "root": None, "images": "f", "cut": "",
        "recipe": Recipe(epochs=3), "compute": "torch", "bfloat16": False,
    }  # fmt: skip
    return Settings(**made | changes)


def test_an_epoch_has_the_keys_it_had():
    epoch = Epoch.from_json(OLD_EPOCH)
    assert epoch.to_json() == OLD_EPOCH
    assert (epoch.train, epoch.val["top1"], epoch.averaged["loss"]) == ({"loss": 1.5, "top1": 0.25}, 0.5, 1.25)
    assert epoch.best("top1") == 0.75
    assert epochs_without_gain([epoch], "top1") == 0


def test_progress_of_an_older_run():
    old = {"epoch": 1, "step": 3, "loss_sum": 4.5, "correct": 7, "seen": 12, "best_top1": 0.75, "history": [OLD_EPOCH]}
    read = Progress.from_json(old)
    assert (read.sums, read.best, read.step) == ({"loss": 4.5, "top1": 7}, 0.75, 3)
    assert read.means() == {"loss": 0.375, "top1": 7 / 12}
    assert Progress.from_json(read.to_json()) == read


def test_settings_there_and_back():
    for made in (settings(), settings(start=None, teacher=None, root="/r", bfloat16=None)):
        assert Settings.from_json(made.to_json()) == made


def test_settings_of_an_older_run():
    """Without a task, without precision, and recipe fields that it did not know."""
    record = settings().to_json()
    del record["task"], record["bfloat16"], record["cut"]
    record["recipe"] = {"epochs": 3}
    read = Settings.from_json(record)
    assert (read.task, read.bfloat16, read.cut) == (None, None, "")
    assert read.recipe == Recipe(epochs=3)
    assert isinstance(read.graph, Graph)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("pictures", None, "has no 'pictures'"), ("graph", 5, "'graph' is 5"), ("compute", "magic", "'compute' is 'magic'"),
    ("teacher", {"file": "x"}, "'teacher' lacks digest"), ("task", 5, "'task' is 5"),
    ("recipe", {"speed": 1}, "a recipe has no speed"),
])  # fmt: skip
def test_other_settings_are_refused(key, value, said):
    record = settings().to_json()
    if value is None:
        del record[key]
    else:
        record[key] = value
    with pytest.raises(FileError, match=said):
        Settings.from_json(record)
