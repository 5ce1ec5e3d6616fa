"""A quantized network in the engines that are not ours, and as a file."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared_files import shared
from smallcnn import onnx, runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import ExportError
from smallcnn.model import store
from smallcnn.model.probe import INTEGER_TOLERANCE, probe_image
from smallcnn.onnx import write
from smallcnn.reference import integer

pytest.importorskip("tflite")

IMAGES = 24


@pytest.fixture(scope="module")
def quantized():
    """ResNet-8 of MLPerf Tiny, int8 per channel, with its images."""
    model = import_checkpoint([shared("weights/resnet8_cifar10_int8.tflite")])
    with np.load(shared("data/cifar10_lossless_4000train_500test.npz")) as data:
        images = data["x_test"][:IMAGES]
    wanted = integer.run(model.graph, model.weights, model.preprocessing.normalise(images))["logits"]
    return model, images, wanted


@pytest.fixture(scope="module")
def folder(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    store.save(quantized[0], folder / "m.safetensors")
    onnx.export(quantized[0], folder / "m.onnx")
    return folder


@pytest.mark.parametrize(("suffix", "engine"), [
    (".safetensors", "onnxruntime"), (".onnx", "onnxruntime"), (".safetensors", "openvino"), (".onnx", "openvino"),
    (".safetensors", "torch"),
])  # fmt: skip
def test_classes_are_the_definition_s(quantized, folder, suffix, engine):
    pytest.importorskip(engine)
    _, images, wanted = quantized
    net = runtime.open(folder / f"m{suffix}", engine=engine, threads=1)
    assert net.tolerance == INTEGER_TOLERANCE
    got = net.logits(images)
    sure = np.diff(np.sort(wanted, 1)[:, -2:])[:, 0] > 2 * np.unique(np.diff(np.unique(wanted)))[0]  # by two steps
    assert sure.sum() > IMAGES // 2
    np.testing.assert_array_equal(got.argmax(1)[sure], wanted.argmax(1)[sure])
    assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("explained", [0.3, 0.19])
def test_what_rounding_explains_is_exported(quantized, tmp_path, monkeypatch, explained):
    monkeypatch.setattr(write, "relative_error", lambda got, wanted: 0.2)
    monkeypatch.setattr(write, "rounding", lambda run, shape: explained + 0 * len(run(probe_image(shape))))
    if explained > 0.2:
        assert onnx.export(quantized[0], tmp_path / "m.onnx") == 0.2
    else:
        with pytest.raises(ExportError, match=r"off by 2.0e-01 .* \(allowed: 2e-01\); nothing written"):
            onnx.export(quantized[0], tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_file() is (explained > 0.2)


def test_a_quarter_of_the_bytes(tmp_path):
    for kind in (True, False):
        model = import_checkpoint([shared("weights/mobilenet_v1_0.75_192_quant.tflite")], integer=kind)
        store.save(model, tmp_path / f"{kind}.safetensors")
    whole, real = ((tmp_path / f"{kind}.safetensors").stat().st_size for kind in (True, False))
    assert whole <= 0.27 * real


def test_the_model_file_holds_integers(quantized, folder):
    model = quantized[0]
    tensors = load_file(folder / "m.safetensors")
    assert tensors.pop("scales").dtype == np.float32
    assert {str(value.dtype) for value in tensors.values()} == {"int8", "int32"}
    back = store.load(folder / "m.safetensors")
    assert (back.graph, back.task, back.preprocessing) == (model.graph, model.task, model.preprocessing)
    for name, value in model.weights.items():
        np.testing.assert_array_equal(back.weights[name], value, strict=True)
