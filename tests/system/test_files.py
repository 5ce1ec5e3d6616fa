import errno
import os
from pathlib import Path

import pytest

from smallcnn.errors import FileError
from smallcnn.system.files import atomic, check_writable


@pytest.fixture
def old(tmp_path) -> Path:
    """A file that is there already, alone in its folder."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    return path


def only(path: Path) -> bytes:
    """The bytes at `path`, which has its folder for itself: nothing was left beside it."""
    assert list(path.parent.iterdir()) == [path]
    return path.read_bytes()


@pytest.mark.parametrize("kind", [Path, str])
def test_the_file_appears_whole(old, kind):
    with atomic(kind(old)) as beside:
        beside.write_bytes(b"half")
        assert old.read_bytes() == b"old", "nothing changes while it is being written"
        assert beside.parent == old.parent, "the same disk, so that renaming is one step"
        beside.write_bytes(b"new")
    assert only(old) == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_the_writer_the_old_file_stays(old, error):
    with pytest.raises(error), atomic(old) as beside:  # noqa: PT012
        beside.write_bytes(b"half")
        raise error
    assert only(old) == b"old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(old, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full) if step == "fsync" else monkeypatch.setattr(Path, step, full)
    with pytest.raises(FileError, match=r"^cannot write .*model\.bin: No space left on device$"), atomic(old) as beside:
        beside.write_bytes(b"new")
    monkeypatch.undo()
    assert only(old) == b"old"


def test_a_killed_writer_leaves_the_old_file(old):
    """A process that dies half way cannot clean up; what it leaves is hidden and is not the file."""
    if (child := os.fork()) == 0:
        with atomic(old) as beside:
            beside.write_bytes(b"half")
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert old.read_bytes() == b"old"
    assert [path.name for path in old.parent.iterdir() if not path.name.startswith(".")] == ["model.bin"]


def test_the_file_is_synced_before_it_is_renamed(old, monkeypatch):
    """Otherwise a power cut after the renaming could leave an empty file under the new name."""
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("fsync"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    with atomic(old) as beside:
        beside.write_bytes(b"new")
    assert steps == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing/file", "No such file or directory"),
        ("model.bin/file", "Not a directory"),
        ("folder", "it is a folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_places_that_cannot_be_written(old, place, message):
    (old.parent / "folder").mkdir()
    path = old.parent / place
    with pytest.raises(FileError) as before:
        check_writable(path)
    with pytest.raises(FileError) as after, atomic(path):
        pytest.fail("the writer starts although its place cannot be written")
    assert str(before.value) == str(after.value) == f"cannot write {path}: {message}"
    assert sorted(entry.name for entry in old.parent.iterdir()) == ["folder", "model.bin"]


@pytest.mark.parametrize("path", ["", ".", "/", ".."])
def test_paths_without_a_name(path):
    for write in (check_writable, lambda path: atomic(path).__enter__()):
        with pytest.raises(FileError, match=r"^cannot write .*: it is a folder$"):
            write(path)


def test_checking_changes_nothing(old):
    check_writable(old)
    check_writable(old.parent / "new.bin")
    assert only(old) == b"old"
