"""A file's kind is told by its content, whatever it is called; other kinds have their true reason."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from smallcnn.checkpoints.kinds import READ, kind_of
from smallcnn.errors import FileError

WEIGHTS = {"a": np.ones((2, 3), np.float32)}
MODULE = torch.nn.Sequential(torch.nn.Linear(2, 3))
NAMES = ["w", "model_best.pth.tar", "w.ckpt", "w.PTH", "w.pkl", "w.safetensors", "w.npz", "w.h5", "w.onnx", "w.tflite"]


def write_onnx(path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1, [1])],
                                   [value("y", 1, [1])])  # fmt: skip
    path.write_bytes(onnx.helper.make_model(graph, producer_name="a").SerializeToString())


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, **WEIGHTS)


def write_keras(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, b"{}")


STATE = {"a": torch.ones(2)}
WRITERS = {
    "torch": lambda path: torch.save(STATE, path),
    "legacy": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "pickle": lambda path: path.write_bytes(pickle.dumps(WEIGHTS)),
    "pickle 0": lambda path: path.write_bytes(pickle.dumps(WEIGHTS, 0)),
    "pickle 1": lambda path: path.write_bytes(pickle.dumps(WEIGHTS, 1)),
    "safetensors": lambda path: safetensors.numpy.save_file(WEIGHTS, path),
    "npz": write_npz,
    "hdf5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "keras": write_keras,
    "tflite": lambda path: path.write_bytes(struct.pack("<I4s", 28, b"TFL3") + bytes(50)),
    "onnx": write_onnx,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", WRITERS)
def test_kinds_that_are_read(kind, name, tmp_path):
    WRITERS[kind](tmp_path / name)
    expected = "pickle" if kind.startswith("pickle") or kind == "legacy" else kind
    assert kind_of(tmp_path / name) == expected
    assert expected in READ


def write_tar(path, *names, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def write_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"pt2" if name.endswith("archive_format") else b"x")


OTHERS = {
    "TorchScript": (lambda p: torch.jit.script(MODULE).save(str(p)), "a TorchScript program, not weights"),
    "torch.export": (lambda p: torch.export.save(torch.export.export(MODULE, (torch.ones(1, 2),)), str(p)), "(.pt2)"),
    "older torch.export": (lambda p: write_zip(p, "serialized_exported_program.json", "version"), "(.pt2)"),
    "tar": (lambda p: write_tar(p, "model.pth", "b", "c", "d"), "a tar archive (it holds 'model.pth', 'b', 'c', ...)"),
    "tar.gz": (lambda p: write_tar(p, "model.pth", mode="w:gz"), "compressed with gzip; unpack it"),
    "PyTorch 0.1": (lambda p: write_tar(p, "./sys_info", "./pickle", "./tensors", "./storages"), "of PyTorch 0.1"),
    "zip": (lambda p: write_zip(p, "model.pth"), "a zip archive without any known kind of weights (it holds 'model"),
    "empty zip": (write_zip, "it is empty"),
    "empty": (lambda p: p.write_bytes(b""), "damaged: it is empty"),
    "pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><title>404</title>"), "a web page"),
    "text": (lambda p: p.write_text("hello\n"), "of an unsupported kind"),
    "zeros": (lambda p: p.write_bytes(bytes(20_000)), "damaged or of an unsupported kind"),
    "npy": (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "one NumPy array"),
    "saved model": (lambda p: p.write_bytes(b"\x08\x01\x12\x03abc"), "of an unsupported kind"),
    "cut zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(60)), "damaged: a zip archive that is cut off"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", OTHERS)
def test_kinds_that_are_not_read_have_their_reason(kind, tmp_path):
    write, reason = OTHERS[kind]
    write(tmp_path / "w.pt2")
    (tmp_path / "w.pt2").rename(tmp_path / "w.pth")
    with pytest.raises(FileError) as caught:
        kind_of(tmp_path / "w.pth")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'w.pth'}: ")
    assert reason in line
    if kind in ("TorchScript", "torch.export"):
        assert "torch.save(model.state_dict()" in line


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in {
        tmp_path: "a folder",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "x": "no such file",
    }.items():
        with pytest.raises(FileError, match=reason):
            kind_of(path)


def test_a_list_of_members_that_never_ends(tmp_path):
    """A zip's end says how long the list before it is; Python reads all of it, a kilobyte in memory per member."""
    member = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    listed = member * 250_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 9, 9, len(listed), 4, 0)
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + listed + end)
    with pytest.raises(FileError, match="list of members is longer"):
        kind_of(tmp_path / "w.pth")


def test_zeros_packed_a_thousandfold(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(200 * 2**20))
    with pytest.raises(FileError, match="far more than its size allows"):
        kind_of(tmp_path / "w.npz")
