"""Damaged TensorFlow Lite and Keras files: each is an error of one line, or a network, in little time and memory."""

import functools
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fuzz import damage, survive
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import SmallcnnError

pytest.importorskip("h5py")
pytest.importorskip("tflite")

CASES = 120


@functools.cache
def whole() -> dict[str, bytes]:
    sys.path.append(str(Path(__file__).parents[1] / "tflite"))
    from test_tflite_reading import Net, hard_swish_spelled, with_metadata

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.tflite"
        net = Net()
        hard_swish_spelled(net)
        net.metadata["note"] = b"abc"
        net.write(path, [net.image], [net.at])
        found = {"net.tflite": path.read_bytes()}
        found["labels.tflite"] = with_metadata(path, "a\nb\nc\n", mean=[127.5], std=[127.5]).read_bytes()
    with zipfile.ZipFile(Path(__file__).parents[1] / "keras_files" / "files.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith(("sequence.", "transfer."))]
        return found | {name: archive.read(name) for name in names}


def judge(case: int, stage: object) -> str:
    files = whole()
    name = sorted(files)[case % len(files)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(damage(files[name], np.random.default_rng(case)))
        try:
            import_checkpoint([path])
        except SmallcnnError as error:
            assert len(str(error).splitlines()) == 1, error  # noqa: PT017
            return "refused"
    return "read"


def test_damaged_files_are_one_line_or_a_network():
    outcomes = survive("test_described_fuzz", 0, CASES)
    assert outcomes["refused"] > CASES / 4
    assert outcomes["read"] > CASES / 20
    assert outcomes.total() == CASES


@pytest.mark.long
def test_many_damaged_files():
    survive("test_described_fuzz", CASES, 20_000)
