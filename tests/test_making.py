"""`import smallcnn` has what the commands do; what it makes is tested where it is defined."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import smallcnn
from artifacts import artifact, colour_photos
from smallcnn.errors import DataError, FileError, GraphError
from smallcnn.tasks.detection import Detection

MODEL = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"


def test_init_writes_the_network_of_a_name(tmp_path):
    made = smallcnn.init(MODEL, tmp_path / "m.safetensors", resolution=32, classes=3, channels=1, seed=1)
    assert (made.graph.input_shape, made.graph.output_shape) == ((32, 32, 1), (3,))
    net = smallcnn.open(tmp_path / "m.safetensors")
    assert net.labels == ("class 0", "class 1", "class 2")
    assert net.facts["trained"] is False
    with pytest.raises(FileError, match=r"a model file's name ends in \.safetensors"):
        smallcnn.init(MODEL, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="closest: mobilenet_v1"):
        smallcnn.init("mobilnet_v1", tmp_path / "m.safetensors")


def test_init_writes_a_detector(tmp_path):
    made = smallcnn.init("ssdlite:width=0.35", tmp_path / "m.safetensors", resolution=64, classes=3)
    assert made.graph.input_shape == (64, 64, 3)
    net = smallcnn.open(tmp_path / "m.safetensors")
    assert net.task == Detection(("class 0", "class 1", "class 2"))
    assert net.preprocessing.fit == "stretch"


def test_train_evaluate_and_export(tmp_path):
    photos = colour_photos(tmp_path / "photos")
    result = smallcnn.train(MODEL, photos, tmp_path / "run", resolution=32, epochs=1, batch_size=8)
    assert result.finished
    assert smallcnn.export(result.best, tmp_path / "m.onnx") < 1e-4
    by_path = smallcnn.evaluate(tmp_path / "m.onnx", photos).metrics
    by_net = smallcnn.evaluate(smallcnn.open(result.best), photos).metrics
    assert (by_path.images, by_path.top1) == (by_net.images, by_net.top1)
    with pytest.raises(FileError, match=r"export starts from a \.safetensors model file"):
        smallcnn.export(tmp_path / "m.onnx", tmp_path / "n.onnx")
    with pytest.raises(DataError):
        smallcnn.evaluate(tmp_path / "m.onnx", tmp_path / "nowhere")


@pytest.mark.skipif(not (find_spec("halide") and find_spec("ziglang")), reason="needs the 'compile' extra")
def test_compile(tmp_path):
    made = smallcnn.compile(artifact(), tmp_path / "m.so", threads=1)
    assert made.error < 1e-4
    assert smallcnn.open(tmp_path / "m.so").logits(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)


def test_names_are_there_however_they_are_asked_for():
    """Modules called train and evaluate exist too: whichever is imported first, both can be called."""
    code = """
        import smallcnn, smallcnn.train.recipe, smallcnn.evaluate
        from smallcnn import compile, evaluate, export, init, train
        print(all(map(callable, (compile, evaluate, export, init, train, smallcnn.train, smallcnn.evaluate))))
        print(len([name for name in dir(smallcnn) if name in ("compile", "evaluate", "export", "init", "train")]))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "5"]


def test_importing_costs_nothing():
    code = (
        "import sys, smallcnn; print(sorted(m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'onnx')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ, timeout=120
    )
    assert done.stdout.strip() == "[]"
