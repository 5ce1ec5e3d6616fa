"""Labels, file names and foreign metadata reach a terminal without what it would obey or hide."""

import json
import os
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifacts import artifact
from smallcnn import onnx
from smallcnn.errors import FileError
from smallcnn.model.facts import Facts
from smallcnn.model.store import load, save
from smallcnn.system.escape import escaped
from smallcnn.tasks.classification import Classification

HOSTILE = ("\x1b[2J\x1b[31mred", "gr\neen\r\t\x07", "\u202eeulb\u200b\u2066\x9b")
NOT_UTF8 = os.fsdecode(b"\xff\xfe.png")


@pytest.mark.parametrize(("text", "shown"), [
    ("plain", "plain"),
    ("日本 é 🙂 שלום", "日本 é 🙂 שלום"),
    ("a\nb", r"a\nb"),
    ("\x1b[31m", r"\x1b[31m"),
    ("\x9b31m", r"\x9b31m"),  # the same in one character
    ("\u202e\u2066\u200f", r"\u202e\u2066\u200f"),
    ("\u200b\ufeff\U000e0041", r"\u200b\ufeff\U000e0041"),
    ("\u2028\u2029", r"\u2028\u2029"),
    ("\udcff", r"\udcff"),
    ("\u3164", r"\u3164"),
])  # fmt: skip
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert escaped(text) == shown


def harmless(text):
    """Whether nothing but line ends is left that cannot be seen; and it can be written as UTF-8."""
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with such labels, and images in folders and under names like them."""
    folder = tmp_path_factory.mktemp("hostile") / "a\x1b[7mb\u202e"
    model = replace(artifact(), task=Classification(HOSTILE), facts=Facts(trained=False, other={"\x1b": "\x1b[31m"}))
    folder.mkdir()
    save(model, folder / "m\x1b.safetensors")
    onnx.export(model, folder / "m\x1b.onnx")
    rng = np.random.default_rng(0)
    for label in HOSTILE:
        (folder / "photos" / label).mkdir(parents=True)
        for name in ("\x1b]0;title\x07.png", "line\nbreak.png", NOT_UTF8, "plain.png"):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "photos" / label / name, "PNG")
    (folder / "photos" / HOSTILE[0] / "broken\x1b.png").write_bytes(b"no image")
    (folder / "boxes").mkdir()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "boxes" / "a\x1b.png", "PNG")
    rows = "".join(f'"a\x1b.png",1,1,5,{i},"{label}"\n' for i, label in enumerate((*HOSTILE, HOSTILE[0]), 2))
    (folder / "boxes" / "b\x1b.csv").write_text(rows + '"b\x1b.png",1,1,5,5,x\n', encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(("\x1b[31mred", "\u202egreen", "blue\x07")), encoding="utf-8")
    return folder


COMMANDS = {
    "predict": (["predict", "MODEL", "PHOTOS"], 2),  # one is no image
    "predict onnx": (["predict", "ONNX", "PHOTOS"], 2),
    "predict csv": (["predict", "MODEL", "PHOTOS", "--csv"], 2),
    "predict json": (["predict", "MODEL", "PHOTOS", "--json"], 2),
    "predict, no such image": (["predict", "MODEL", "absent\x1b.png"], 2),
    "predict, no such model": (["predict", "absent\x1b.onnx", "PHOTOS"], 2),
    "evaluate": (["evaluate", "MODEL", "--data", "PHOTOS", "--part", "all"], 0),
    "evaluate json": (["evaluate", "MODEL", "--data", "PHOTOS", "--part", "all", "--json"], 0),
    "evaluate, no such part": (["evaluate", "MODEL", "--data", "PHOTOS", "--part", "\x1b"], 2),
    "analyze": (["analyze", "MODEL", "--data", "PHOTOS", "--part", "all", "--sweep", "0", "--out", "PAGE"], 0),
    "bench": (["bench", "MODEL", "ONNX", "--seconds", "0.01"], 0),
    "export": (["export", "MODEL", "--out", "OUT.onnx"], 0),
    "import": (["import", "ONNX", "--labels", "LABELS", "--out", "OUT.safetensors"], 0),
    "import, another number of labels": (["import", "ONNX", "--labels", "MODEL", "--out", "OUT.safetensors"], 2),
    "shard": (["shard", "PHOTOS", "--out", "SHARDS"], 0),
    "boxes": (["boxes", "BOXES"], 0),
    "boxes converted": (["boxes", "BOXES", "--to", "coco", "--out", "SHARDS"], 0),
    "no such command": (["\x1b[31m"], 2),
    "no such option": (["predict", "--\x1b[31m"], 2),
    "no such network": (["cost", "\x1b[31m\u202e"], 2),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_escapes(smallcnn, folder, tmp_path, name):
    if name in ("bench", "analyze"):
        pytest.importorskip("torch")
    words, expected = COMMANDS[name]
    places = {
        "MODEL": folder / "m\x1b.safetensors", "ONNX": folder / "m\x1b.onnx", "PHOTOS": folder / "photos",
        "LABELS": folder / "labels.txt", "BOXES": folder / "boxes",
        "PAGE": tmp_path / "p\x1b.html", "SHARDS": tmp_path / "s\x1b",
        "OUT.onnx": tmp_path / "o\x1b.onnx", "OUT.safetensors": tmp_path / "o\x1b.safetensors",
    }  # fmt: skip
    code, out, err = smallcnn(*(places.get(word, word) for word in words))
    assert code == expected, err
    assert harmless(out), out
    assert harmless(err), err
    (out + err).encode()
    if name == "analyze":
        assert harmless(places["PAGE"].read_text(encoding="utf-8"))
    if name == "predict json":
        assert {entry["label"] for entry in json.loads(out)} <= set(HOSTILE)


def test_training_on_such_folders_escapes(smallcnn, folder, tmp_path):
    pytest.importorskip("torch")
    code, out, err = smallcnn(
        "train", "--from", folder / "m\x1b.safetensors", "--data", folder / "photos", "--out", tmp_path / "r\x1b",
        "--epochs", 1, "--batch-size", 4,
    )  # fmt: skip
    assert code == 0, err
    assert harmless(out + err)
    assert sorted(load(tmp_path / "r\x1b" / "best.safetensors").labels) == sorted(HOSTILE)


def test_labels_that_are_refused(tmp_path):
    save(replace(artifact(), task=Classification(("a", "b", "c" * 1001))), tmp_path / "m.safetensors")
    with pytest.raises(FileError, match="one of its labels has 1,001 characters; at most 1,000 are allowed"):
        load(tmp_path / "m.safetensors")


def test_a_console_that_lacks_a_letter(tmp_path):
    """As Windows' consoles and pipes with an older code page do."""
    import subprocess
    import sys

    save(replace(artifact(), task=Classification(("日本", "é", "ß"))), tmp_path / "m.safetensors")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "smallcnn", "predict", tmp_path / "m.safetensors", tmp_path / "a.png"],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"\u65e5\u672c" in done.stdout
