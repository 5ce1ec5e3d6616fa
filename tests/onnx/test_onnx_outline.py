"""A file is known in outline, its metadata and how much it holds, before it is read: hostile ones cost nothing."""

import os
import time

import onnx
import pytest
from onnx import helper

from artifacts import artifact
from onnx_files import STEM, STORED, head, made, node
from smallcnn import runtime
from smallcnn.errors import FileError
from smallcnn.onnx import export, read_onnx
from smallcnn.onnx.read.outline import metadata, outline

SECONDS = 5  # of the processor, which other programs do not change; it takes 0.5 to 1


def model():
    return made([STEM, node("Relu", "s", "m"), *head()], [1, 3, 5, 6], STORED)


def test_our_own_metadata(tmp_path):
    export(artifact(), tmp_path / "m.onnx")
    wanted = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert metadata(tmp_path / "m.onnx") == wanted
    assert len(wanted) > 5


def test_a_file_cut_short_anywhere_is_damaged_or_says_less(tmp_path):
    export(artifact(), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    whole = outline(content)
    for end in range(1, len(content), len(content) // 300):
        try:
            said = outline(content[:end])
        except FileError as error:
            assert "damaged or not an ONNX file" in str(error)  # noqa: PT017  (either outcome is right)
            continue
        assert said.items() <= whole.items()


@pytest.mark.parametrize(
    "content", [b"\xff" * 1000, b"\x00" * 1000, b"\x0b" * 1000, b"\x72\xff\xff\xff\xff\xff\xff\x01"]
)
def test_bytes_that_are_no_message(content):
    with pytest.raises(FileError, match="damaged or not an ONNX file"):
        outline(content)


def nodes(it):
    it.graph.node.extend([node("Relu", "m", "n")] * 300_000)


def inputs(it):
    it.graph.node[0].input.extend([""] * 1_000_000)


def values(it):
    it.graph.value_info.extend([onnx.ValueInfoProto(name="v")] * 500_000)


def entries(it):
    for _ in range(300_000):
        it.metadata_props.add(key="a", value="b")


def text(it):
    it.metadata_props.add(key="a", value="b" * 2**25)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("many", [nodes, inputs, values, entries, text])
def test_far_too_much_is_known_at_once(tmp_path, many, ours):
    it = model()
    many(it)
    if ours:
        it.metadata_props.add(key="smallcnn.format", value="1")
    path = tmp_path / "net.onnx"
    path.write_bytes(it.SerializeToString())
    start = time.process_time()
    for reader in (runtime.open, read_onnx):
        with pytest.raises(FileError, match=r"net\.onnx: has (more than|metadata of)"):
            reader(path)
    assert time.process_time() - start < SECONDS


def test_somebody_elses_file_is_known_before_a_session_is_made(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(model().SerializeToString())
    monkeypatch.setattr("smallcnn.engines.engine.start", None)
    with pytest.raises(FileError, match="not written by smallcnn; import it with"):
        runtime.open(path)


def test_pipes_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for reader in (runtime.open, read_onnx):
        with pytest.raises(FileError, match=r"pipe\.onnx: .*not a regular file"):
            reader(tmp_path / "pipe.onnx")
        with pytest.raises(FileError, match=r"folder\.onnx: a folder, not a file"):
            reader(tmp_path / "folder.onnx")
        with pytest.raises(FileError, match=r"gone\.onnx: no such file"):
            reader(tmp_path / "gone.onnx")


def test_claims_without_the_bytes(tmp_path):
    it = model()
    del it.graph.initializer[:]
    it.graph.initializer.append(helper.make_tensor("dense", 1, [2, 4], [0.0] * 8))
    it.graph.initializer.add(name="w", data_type=1, dims=[4, 3, 2**30, 2**30])
    (tmp_path / "net.onnx").write_bytes(it.SerializeToString())
    with pytest.raises(FileError, match="'w' holds 0 values, which does not match"):
        read_onnx(tmp_path / "net.onnx")
