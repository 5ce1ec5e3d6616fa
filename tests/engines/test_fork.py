"""A Net in other processes: pickled, forked, in a pool. Each wait has a limit: what fails here fails by hanging."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from artifacts import COLOURS, artifact
from smallcnn import onnx, runtime
from smallcnn.errors import FileError
from smallcnn.model.store import save

LIMIT = 60
FILES = ["m.safetensors", "m.onnx", *(["m.so"] if find_spec("halide") else [])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(artifact(), folder / "m.safetensors")
    onnx.export(artifact(), folder / "m.onnx")
    if "m.so" in FILES:
        from smallcnn.compiler.compiling import compile_file

        compile_file(artifact(), folder / "m.so")
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("file", FILES)
def test_a_pickled_net_opens_its_file_again(folder, file):
    net = runtime.open(folder / file, threads=1)
    net = replace(net, preprocessing=replace(net.preprocessing, crop=1.0))
    again = pickle.loads(pickle.dumps(net))
    batch = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(again.logits(batch), net.logits(batch))
    assert (again.path, again.engine, again.threads, again.preprocessing) == (
        net.path, net.engine, net.threads, net.preprocessing,
    )  # fmt: skip
    assert len(pickle.dumps(net)) < 2000


def test_a_pickled_net_whose_file_is_gone(tmp_path):
    save(artifact(), tmp_path / "m.safetensors")
    pickled = pickle.dumps(runtime.open(tmp_path / "m.safetensors"))
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(FileError, match=r"m\.safetensors: cannot be opened again \(No such file or directory\)"):
        pickle.loads(pickled)


def test_a_relative_path_is_found_from_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    pickled = pickle.dumps(runtime.open("m.onnx"))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled).labels == artifact().labels


def ask(net, path):
    return net.classify([path])[0]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool(folder, file, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    net = runtime.open(folder / file, threads=2)
    paths = [folder / f"{name}.png" for name in COLOURS]
    wanted = net.classify(paths)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap_async(ask, [(net, path) for path in paths]).get(LIMIT) == wanted


IN_A_CHILD = """
import os, sys
import numpy
from smallcnn import runtime

net = runtime.open(sys.argv[1], engine=sys.argv[2], threads=2)
batch = numpy.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), numpy.uint8)
before = net.logits(batch)
child = os.fork()
if not child:
    for _ in range(20):
        if numpy.abs(net.logits(batch) - before).max() > 1e-5:
            sys.exit(9)
    sys.exit(7)  # an ordinary end, not that of a pool's worker
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
net.logits(batch)
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("engine", ["onnxruntime", "torch", "openvino", "compiled"])
def test_a_forked_process_answers_and_ends(folder, engine):
    if engine == "compiled" and "m.so" not in FILES:
        pytest.skip("needs Halide")
    if engine != "compiled":
        pytest.importorskip(engine)
    file = folder / ("m.so" if engine == "compiled" else "m.safetensors")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_CHILD, file, engine], timeout=LIMIT, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 7


def test_a_short_repr(folder):
    net = runtime.open(folder / "m.onnx")
    assert repr(net) == f"<Net tiny: 3 classes, input 8x8x3, onnxruntime, {folder / 'm.onnx'}>"
    assert repr(artifact()) == "<Model tiny: classification, 3 labels, 12 tensors>"
    assert repr(artifact().graph) == "<Graph tiny: 9 nodes, (8, 8, 3) -> (3,)>"
