"""`smallcnn predict`: how many labels, tables, folders with anything in them, and what it says."""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from artifacts import COLOURS, LABELS, artifact
from smallcnn import runtime
from smallcnn.model.store import save
from smallcnn.tasks.classification import Classification

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices among files are Unix's")


@pytest.fixture
def model(tmp_path):
    save(artifact(), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos" / "deeper").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / "photos" / "deeper" / f"{name}.png")
    return tmp_path / "photos"


def test_top(smallcnn, model, photos):
    photo = photos / "deeper" / "red.png"
    (wanted,) = runtime.open(model).classify([photo], top=3)
    assert [label for label, _ in wanted.ranked] == sorted(LABELS, key=lambda label: -dict(wanted.ranked)[label])
    words = [f"{label} {value:.1%}" for label, value in wanted.ranked]
    for top in (1, 2, 3, 100):
        assert smallcnn("predict", model, photo, "--top", top)[1] == f"{photo}: {', '.join(words[:top])}\n"
        (entry,) = json.loads(smallcnn("predict", model, photo, "--top", top, "--json")[1])
        assert [one["label"] for one in entry["top"]] == [label for label, _ in wanted.ranked[:top]]
        assert len(entry["top5"]) == 3


@pytest.mark.parametrize(("top", "head"), [
    ([], "file,label,probability"),
    (["--top", 2], "file,label,probability,label 2,probability 2"),
    (["--top", 9], "file,label,probability,label 2,probability 2,label 3,probability 3"),
])  # fmt: skip
def test_csv(smallcnn, tmp_path, photos, top, head):
    labels = ('a "quoted" one', "with, comma", "plain")
    save(replace(artifact(), task=Classification(labels)), tmp_path / "m.safetensors")
    comma = photos / 'c,d "e".png'
    Image.new("RGB", (8, 8)).save(comma)
    code, out, _ = smallcnn("predict", tmp_path / "m.safetensors", photos, "--csv", *top)
    assert code == 0
    assert out.splitlines()[0] == head
    rows = list(csv.reader(out.splitlines()))
    assert {len(row) for row in rows} == {len(head.split(","))}
    assert [row[0] for row in rows[1:]] == [str(comma), *(str(photos / "deeper" / f"{name}.png") for name in COLOURS)]
    for row, seen in zip(rows[1:], runtime.open(tmp_path / "m.safetensors").classify([row[0] for row in rows[1:]])):  # noqa: B905
        assert row[1] == seen.label
        assert float(row[2]) == pytest.approx(seen.probability, rel=1e-5)


def test_csv_of_scores(smallcnn, tmp_path, photos):
    save(replace(artifact(), task=Classification(LABELS, "none")), tmp_path / "m.safetensors")
    assert smallcnn("predict", tmp_path / "m.safetensors", photos, "--csv")[1].startswith("file,label,score\n")


def test_csv_and_json_exclude_each_other(refused, model, photos):
    assert refused("predict", model, photos, "--csv", "--json") == "--json and --csv cannot be combined"


@pytest.fixture
def odd(photos):
    """Files that are no files, under names of images."""
    os.mkfifo(photos / "pipe.png")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()  # noqa: PTH109
    os.chdir(photos)  # a socket's path is at most 108 characters
    listener.bind("socket.jpg")
    os.chdir(here)
    (photos / "endless.png").symlink_to("/dev/zero")
    (photos / "terminal.gif").symlink_to("/dev/tty")
    (photos / "broken.png").symlink_to("nowhere.png")
    (photos / "folder.png").mkdir()
    (photos / "notes.txt").write_text("no image")
    yield photos
    listener.close()


def run(*args):
    """In a process of its own, which is ended if it waits for a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "smallcnn", *map(str, args)], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_a_folder_with_pipes_and_devices(model, odd):
    done = run("predict", model, odd, "--csv")
    rows = list(csv.reader(done.stdout.splitlines()))
    assert [row[0] for row in rows[1:]] == [str(odd / "deeper" / f"{name}.png") for name in COLOURS]
    assert "left out 5 files: 4 special (pipe, socket or device), 1 .txt" in done.stderr
    assert done.stderr.endswith("broken.png: no such file\n")  # an image that cannot be opened
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["pipe.png", "socket.jpg", "endless.png", "broken.png", "absent.png"])
def test_one_of_them_by_name_is_one_line(model, odd, name):
    done = run("predict", model, odd / name)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert name in line


@pytest.mark.parametrize("name", ["pipe.onnx", "pipe.safetensors", "pipe.so"])
def test_a_pipe_as_model_is_one_line(photos, tmp_path, name):
    os.mkfifo(tmp_path / name)
    done = run("predict", tmp_path / name, photos)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert name in line


def test_without_a_model_the_bundled_one_says_its_name(smallcnn, photos):
    code, out, err = smallcnn("predict", photos / "deeper" / "red.png")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert err == (
        "using the bundled model resnet20 (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck); "
        "give a FILE first to use another\n"
    )


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_label(refused, model, count):
    assert refused("predict", *[model][:count]) == "no IMAGE given"


def test_the_help_says_that_a_compiled_file_is_a_program(smallcnn):
    assert "is a program: opening it runs it" in " ".join(smallcnn("predict", "--help")[1].split())


def test_a_file_that_is_not_there_and_one_without_a_suffix(smallcnn, refused, photos):
    assert refused("predict", photos / "nowhere") == f"{photos / 'nowhere'}: no such file"
    plain = (photos / "deeper" / "red.png").rename(photos / "photo")
    assert smallcnn("predict", plain)[0] == 0


def test_the_model_file_goes_first(refused, model, photos):
    photo = photos / "deeper" / "red.png"
    assert refused("predict", photo, model) == f"the model file goes first: smallcnn predict {model} IMAGE..."
