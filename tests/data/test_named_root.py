"""A named set that lies in a folder: with --root every command that reads images finds it, to the last page."""

import json

import pytest
from click.testing import CliRunner

from artifacts import colour_photos
from smallcnn.cli.shard import command as shard
from smallcnn.data.sources import open_source
from smallcnn.report import run as report


@pytest.fixture
def root(tmp_path):
    """Three colours that pass for three classes of ImageNet."""
    folder = colour_photos(tmp_path / "photos", per_class=10)
    for colour, wnid in (("blue", "n01440764"), ("green", "n01443537"), ("red", "n01484850")):
        (folder / colour).rename(folder / wnid)
    return folder


def test_every_command_takes_it(smallcnn, root, tmp_path, monkeypatch):
    out, given = tmp_path / "run", ("--data", "imagenet", "--root", root)
    with monkeypatch.context() as quick:
        asked = []
        quick.setattr(report, "of_run", lambda run, source, goal: asked.append((run, source.listing)))
        code, best, err = smallcnn(
            "train", "effnet_cifar:block=shufflenet", *given, "--out", out, "--resolution", 16, "--epochs", 1,
            "--compute", "torch", "--batch-size", 8,
        )  # fmt: skip
    assert code == 0, err
    assert [(run, listing.place, listing.root) for run, listing in asked] == [(out, "imagenet", root)]
    assert smallcnn("train", "--resume", "--out", out)[0] == 0
    assert "6 images of imagenet (val)" in (out / "report.html").read_text()
    figures = [
        json.loads(smallcnn(command, best.strip(), *given, "--json", *more)[1])
        for command, more in (("evaluate", ()), ("analyze", ("--sweep", 0)))
    ]
    assert [(found["part"], found["images"]) for found in figures] == [("val", 6), ("val", 6)]


def test_shards_of_it(root, tmp_path):
    pytest.importorskip("webdataset")
    done = CliRunner().invoke(shard, ["imagenet", "--root", str(root), "--out", str(tmp_path / "shards")])
    assert done.exit_code == 0, done.output
    assert open_source(tmp_path / "shards").classes == ("tench", "goldfish", "great white shark")
