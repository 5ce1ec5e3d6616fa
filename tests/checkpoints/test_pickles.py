"""The machine that reads pickles: what pickle and PyTorch write comes back plain, and nothing in a file is ever run."""

import collections
import io
import pickle
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from smallcnn.checkpoints.pickles import Stub, load
from smallcnn.checkpoints.read import read_weights
from smallcnn.checkpoints.tensors import BUILDERS, Array
from smallcnn.errors import FileError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data):
    return load(io.BytesIO(data), BUILDERS, lambda identity: identity)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [
    None, True, False, 0, -1, 255, 65536, 2**40, -(2**200), 0.1, float("inf"), "", "text", "naïve\n\u2028",
    "a" * 70_000, [], [1, [2, [3]]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": 1, 2: {"b": ()}}, [{}] * 3,
], ids=lambda value: repr(value)[:20])  # fmt: skip
def test_plain_values_come_back(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_become_plain_ones(protocol):
    shared = [1]
    value = [
        collections.OrderedDict(a=1, b=2),
        collections.defaultdict(list, {"c": 3}),
        {1},
        frozenset([1]),
        shared,
        shared,
    ]
    ordered, default, one, other, first, second = read(pickle.dumps(value, protocol))
    assert (ordered, default, one, other) == ({"a": 1, "b": 2}, {"c": 3}, [1], [1])
    assert first is second


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", [
    np.arange(6.0).reshape(2, 3), np.arange(6, dtype="<i2").reshape(3, 2).T, np.arange(4, dtype=">f4"),
    np.ones((), "f2"), np.ones((0, 3), "u1"), np.array([True, False]),
], ids=["double", "columns first", "big-endian", "scalar", "empty", "bool"])  # fmt: skip
def test_arrays(array, protocol):
    found = read(pickle.dumps(array, protocol))
    assert isinstance(found, Array)
    np.testing.assert_array_equal(found.array(), array)
    assert found.stored_bytes() == array.nbytes


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_numpy_1_and_2(module):
    written = pickle.dumps(np.arange(3.0), 2)
    (name,) = (name for name in (b"numpy.core.multiarray", b"numpy._core.multiarray") if b"c" + name + b"\n" in written)
    np.testing.assert_array_equal(read(written.replace(name, module)).array(), [0, 1, 2])


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(2, "c8"), np.zeros(2, [("a", "f4")])])
def test_arrays_of_something_else(array):
    with pytest.raises(FileError, match="something other than numbers"):
        read(pickle.dumps(array)).array()


class Loud:
    """Every way in which unpickling could run code of a class."""

    ran: ClassVar = []

    def __new__(cls, *_):
        cls.ran.append("new")
        return super().__new__(cls)

    def __init__(self, *args):
        self.ran.append("init")

    def __reduce__(self):
        return Loud, (1,), {"key": 2}, iter([3]), iter([("entry", 4)])

    def __setstate__(self, state):
        self.ran.append("setstate")

    def append(self, item):
        self.ran.append("append")

    def __setitem__(self, name, value):
        self.ran.append("setitem")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_becomes_a_stub_and_nothing_of_its_class_runs(protocol):
    written = pickle.dumps(Loud(), protocol)
    Loud.ran.clear()
    found = read(written)
    assert Loud.ran == []
    assert isinstance(found, Stub)
    assert (found.name, found.args, found.state, found.entries) == (f"{__name__}.Loud", (1,), {"key": 2}, {"entry": 4})
    pickle.loads(written)
    assert set(Loud.ran) == {"new", "init", "setstate", "append", "setitem"}, "so nothing was proved"


# --- hostile files ---------------------------------------------------------------------------------------------------

COMMAND = "touch ran"
LONG = b"X" + struct.pack("<I", 10_000_000) + b"a" * 10_000_000


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def nested_dicts(bottom, depth):
    """Dicts of a thousand entries, all of which are the next dict."""
    levels = [b"}(" + b"".join(text(f"{i:04}") + bottom for i in range(1000)) + b"uq\0"]
    for level in range(1, depth):
        entries = (text(f"{i:04}") + b"h" + bytes([level - 1]) for i in range(1000))
        levels.append(b"}(" + b"".join(entries) + b"uq" + bytes([level]))
    return b"\x80\2" + b"".join(levels) + b"."


def large_array_under_many_names():
    array = pickle.dumps(np.zeros(1_000_000, np.float32), 3)[2:-1] + b"r\0\1\0\0"
    names = (text(f"{i:05}") + (array if i == 0 else b"j\0\1\0\0") for i in range(4_900))
    return b"\x80\3}(" + b"".join(names) + b"u."


RUNNING = {
    "reduce": b"cposix\nsystem\n(S'touch ran'\ntR.",
    "inst": b"(S'touch ran'\niposix\nsystem\n.",
    "obj": b"(cposix\nsystem\nS'touch ran'\no.",
    "eval": b'c__builtin__\neval\n(S\'open("ran","w")\'\ntR.',
    "newobj": b"\x80\2csubprocess\nPopen\n(" + text(COMMAND) + b"I01\ntt\x81.",
    "stack_global": b"\x80\4\x8c\2os\x8c\6system\x93(" + text(COMMAND) + b"tR.",
    "getattr": b"\x80\2c__builtin__\ngetattr\n(c__builtin__\n__import__\n" + text("x") + b"tR.",
    "builder as a class": b"\x80\2ccollections\nOrderedDict\nN}" + text("__init__") + b"cposix\nsystem\ns\x86b.",
}
COSTLY = {
    "memo number": (b"\x80\2Nr\xff\xff\xff\xff.", "holds no weights"),
    "text number": (b"(dp99999999999999999999\n.", "holds no weights"),
    "bytes": (b"\x80\4\x8e" + struct.pack("<Q", 2**40) + b"abc.", "damaged"),
    "more bytes": (b"\x80\4\x8e" + struct.pack("<Q", 2**63 + 1) + b"abc.", "damaged"),
    "bytearray": (b"\x80\5\x96" + struct.pack("<Q", 2**45) + b"N.", "damaged"),
    "frame": (b"\x80\4\x95" + struct.pack("<Q", 2**63 - 1) + b"N.", "holds no weights"),
    "long": (b"\x80\2\x8b" + struct.pack("<i", 30_000_000) + b"\x7f" * 30_000_000 + b".", "holds no weights"),
    "lists in lists": (b"\x80\2]q\0" + b"".join(
        b"]q" + bytes([i + 1]) + b"(" + (b"h" + bytes([i])) * 10 + b"e" for i in range(60)) + b".", "holds no weights"),
    "dicts in dicts": (nested_dicts(b"N", 8), "holds no weights"),
    "arrays in dicts": (nested_dicts(pickle.dumps(np.zeros(1), 2)[2:-1], 6), "holds more than 5,000 tensors"),
    "tuples in a key": (b"\x80\2})" + b"2\x86" * 100 + b"Ns.", "holds no weights"),
    "depth": (b"\x80\2" + b"]" * 400_000 + b"a" * 399_999 + b".", "holds no weights"),
    "itself": (b"\x80\2}q\0" + text("model") + b"h\0s.", "holds no weights"),
    "steps": (b"\x80\2" + b"N0" * 5_000_000 + b".", "more than 1,000,000 steps"),
    "stack": (b"\x80\2N" + b"2" * 10_000_000 + b".", "more than 1,000,000 steps"),
    "marks": (b"\x80\2" + b"(" * 10_000_000 + b".", "more than 1,000,000 steps"),
    "names": (b"\x80\4" + LONG + b"\x94" + LONG + b"\x94" + b"h\0h\1\x93" * 300_000 + b".", "holds no weights"),
    "text as bytes": (b"\x80\2c_codecs\nencode\nq\0" + LONG + text("latin1") + b"\x86q\1" + b"h\0h\1R" * 300_000 + b".",
                      "holds no weights"),
    "pairs": (b"\x80\2ccollections\nOrderedDict\nq\0](" + b"K\1K\2\x86" * 100_000 + b"e\x85q\1" + b"h\0h\1R" * 150_000
              + b".", "holds no weights"),
    "long keys": (b"\x80\2}" + LONG + b"q\0Ns" + b"h\0Ns" * 200_000 + b".", "holds no weights"),
    "long numbers as keys": (b"\x80\2}\x8b" + struct.pack("<i", 5_000_000) + b"\x7f" * 5_000_000 + b"q\0Ns"
                             + b"h\0Ns" * 200_000 + b".", "holds no weights"),
    "storages": (b"\x80\3ctorch.storage\n_load_from_bytes\nq\0C\x53\x80\3" + b"N0" * 40 + b".\x85q\1"
                 + b"0h\0h\1R" * 200_000 + b".", "damaged"),
    "long name of a storage": (
        b"\x80\2ctorch\n" + b"A" * 10_000_000 + b"\nq\0"
        + (text("storage") + b"q\1h\0" + text("0") + text("cpu") + b"K\1tQ0").join([b"("] * 60_000)[:-1] + b"N.",
        "holds no weights"),
    "one array": (large_array_under_many_names(), "far larger than its file"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNNING)
def test_a_pickle_that_would_run_something_never_does(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pkl").write_bytes(RUNNING[name])
    with pytest.raises(FileError, match=r"refused: .* could run") as caught:
        read_weights(Path("w.pkl"))
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "w.pkl"]


def test_those_do_run_elsewhere(tmp_path):
    (tmp_path / "w.pkl").write_bytes(RUNNING["reduce"])
    code = "import pickle; pickle.load(open('w.pkl', 'rb'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "ran").exists(), "so nothing was proved"


@pytest.mark.parametrize("name", COSTLY)
def test_a_pickle_that_would_cost_much_is_one_line(name, tmp_path):
    """In less than 5 s of processor time, and with no more than 600 MB, whatever memory the process had before."""
    data, reason = COSTLY[name]
    path = tmp_path / "w.pkl"
    path.write_bytes(data)
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileError, match=reason) as caught:
        read_weights(path)
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024
