"""Whatever happens during an update, the file is the old or the new one; and no update that is not wanted is made."""

import os
import random
import signal
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zstandard")
pytest.importorskip("cryptography")

from safetensors.numpy import save

from smallcnn.delta.keys import make_keys
from smallcnn.delta.making import make_delta
from smallcnn.delta.updating import update
from smallcnn.errors import DeltaError, WriteError

WEIGHTS = np.random.default_rng(0).normal(0, 0.1, 200_000).astype(np.float32)
OLD, NEW = save({"a": WEIGHTS}), save({"a": WEIGHTS * np.float32(1.001)})
forks = pytest.mark.skipif(sys.platform == "win32", reason="no fork")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Keys, and a signed delta from version 3 to 4 of "birds"."""
    folder = tmp_path_factory.mktemp("made")
    make_keys(folder / "k")
    for name, content in {"old": OLD, "new": NEW}.items():
        (folder / name).write_bytes(content)
    make_delta(folder / "old", folder / "new", folder / "d", sign=folder / "k.key", line="birds", old_version=3)
    return folder


@pytest.fixture
def device(tmp_path) -> Path:
    """The old file, alone in its folder."""
    (tmp_path / "device").mkdir()
    path = tmp_path / "device" / "model.safetensors"
    path.write_bytes(OLD)
    return path


def in_place(made, device, **how):
    return update(device, made / "d", device, trust=made / "k.pub", **how)


def only(path: Path) -> bytes:
    assert list(path.parent.iterdir()) == [path]
    return path.read_bytes()


def test_in_place_and_again(made, device):
    device.chmod(0o600)
    assert not in_place(made, device).already
    assert only(device) == NEW
    assert stat.S_IMODE(device.stat().st_mode) == 0o600 or sys.platform == "win32"
    before = device.stat().st_mtime_ns
    assert in_place(made, device).already
    assert (only(device), device.stat().st_mtime_ns) == (NEW, before)


def die(*_args, **_how):
    os._exit(9)


def half(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    die()


@forks
@pytest.mark.parametrize(
    ("place", "name", "death"),
    [(Path, "write_bytes", half), (os, "fsync", die), (Path, "replace", die), (Path, "read_bytes", die)],
    ids=["half written", "before it is on the disk", "before it is renamed", "before it is checked"],
)
def test_a_power_cut(made, device, monkeypatch, place, name, death):
    """The process ends at once; the next update succeeds and leaves nothing behind."""
    if (child := os.fork()) == 0:
        monkeypatch.setattr(place, name, death)
        in_place(made, device)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert device.read_bytes() == OLD
    assert len(list(device.parent.iterdir())) == 2, "a leftover"
    in_place(made, device)
    assert only(device) == NEW


def killed(made, device, times):
    """Kills an update at a random moment, so many times; how often the old and the new file was there."""
    found, rng = {OLD: 0, NEW: 0}, random.Random(0)
    for _ in range(2):  # the first imports
        device.write_bytes(OLD)
        start = time.monotonic()
        in_place(made, device)
        whole = time.monotonic() - start
    for _ in range(times):
        device.write_bytes(OLD)
        if (child := os.fork()) == 0:
            in_place(made, device)
            os._exit(0)
        time.sleep(rng.uniform(0, 1.5 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found[there := device.read_bytes()] += 1
        whole *= 1.1 if there == OLD else 0.9  # a busy machine is slower
    return found


@forks
def test_kills(made, device):
    assert sum(killed(made, device, 10).values()) == 10


@forks
@pytest.mark.long
def test_two_hundred_kills(made, device):
    found = killed(made, device, 200)
    assert sum(found.values()) == 200
    assert min(found.values()) > 20


@forks
def test_a_full_disk(made, device):
    """Files may have 100 kB: writing stops in the middle, with one line."""
    import resource

    if (child := os.fork()) == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            in_place(made, device)
        except WriteError as error:
            os._exit(7 if str(error).startswith(f"cannot write {device}: ") else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert only(device) == OLD


def test_a_disk_that_forgets(made, device, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"")
    with pytest.raises(WriteError, match="does not give back what was written"):
        in_place(made, device)
    monkeypatch.undo()
    assert only(device) == OLD


def test_every_changed_byte_of_the_header_is_noticed(made, device):
    content = (made / "d").read_bytes()
    for at in range(288):
        (device.parent.parent / "d").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DeltaError):
            update(device, device.parent.parent / "d", device, trust=made / "k.pub")
    assert only(device) == OLD


def test_changed_bytes_of_the_payload_are_noticed(made, device):
    content = (made / "d").read_bytes()
    for at in range(288, len(content), len(content) // 20):
        (device.parent.parent / "d").write_bytes(content[:at] + bytes([content[at] ^ 128]) + content[at + 1 :])
        with pytest.raises(DeltaError, match="payload is not the one"):
            update(device, device.parent.parent / "d", device, trust=made / "k.pub")
    assert only(device) == OLD


def test_a_zip_bomb_is_not_unpacked(made, device):
    """A step of 4 GiB, made of a frame of some kB, in a header that says so."""
    import deltas

    huge = (1 << 32) - 16
    steps = [(deltas.FRESH, 0, 0, huge)]
    bomb = deltas.delta(OLD, NEW, steps, deltas.payload(OLD, steps, fresh=[bytes(1 << 20)]), new_size=huge)
    (device.parent.parent / "d").write_bytes(bomb)
    with pytest.raises(DeltaError, match="four times as many"):
        update(device, device.parent.parent / "d", device)
    assert only(device) == OLD
