"""A stranger's run folder, and a machine without room or standard streams: one line, and nothing else happens."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.study import results
from smallcnn.train.progress import Progress

RECORD = {
    "epoch": 1, "train_loss": 1.0, "train_top1": 0.5, "val_loss": 1.0, "val_top1": 0.5, "images_per_second": 10.0,
    "seconds": 1.0,
}  # fmt: skip


def test_progress_that_a_run_writes_is_read() -> None:
    read = Progress.from_json(json.loads(json.dumps({"epoch": 1, "history": [RECORD | {"val_loss": float("nan")}]})))
    assert (read.epoch, len(read.history)) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"history": ["x"]},
        {"history": [{"epoch": 1}]},
        {"history": [RECORD | {"images_per_second": "fast"}]},
        {"history": [RECORD | {"val_top1": float("nan")}]},
        {"history": [RECORD | {"seconds": 10**400}]},
        {"history": [RECORD, RECORD]},
        {"epoch": 10**30},
        {"step": -1},
        {"total": -5},
        {"spent": float("nan")},
        {"best_top1": float("nan")},
        {"start": {"top1": "high"}},
        {"failed": {"a.jpg": 5}},
    ],
    ids=str,
)
def test_progress_that_no_run_writes_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Progress.from_json({"epoch": 1, "history": [RECORD]} | change)


def _closing(*numbers: int) -> Callable[[], None]:
    return lambda: [os.close(number) for number in numbers] and None


@pytest.mark.skipif(os.name == "nt", reason="no preexec_fn")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_works_without_standard_streams(closed: tuple[int, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smallcnn", "cost", "mobilenet_v1"], preexec_fn=_closing(*closed), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_classes_are_numbered_in_one_go(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(30_000):
            archive.writestr(f"{i}/x.jpg", b"")
    began = time.process_time()
    assert len(open_source(tmp_path / "many.zip").classes) == 30_000
    assert time.process_time() - began < 15  # 3 seconds; numbered one by one by looking through all, 40 more


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in folders")
def test_a_pipe_or_a_huge_file_is_no_result_of_a_study(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / results.RESULT)
    with pytest.raises(DataError, match="pipe"):
        results.read_one(tmp_path)
    (tmp_path / results.RESULT).unlink()
    with (tmp_path / results.RESULT).open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(DataError, match="larger"):
        results.read_one(tmp_path)
