"""Files that ONNX Runtime's quantizer writes with its various options: read as integers, or refused in one line."""

import numpy as np
import onnx
import pytest

from networks import random_weights
from onnx_files import STEM, STORED, TOLERANCE, answer_as_written, defined, head, integer_layers, made, node, random
from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.model.model import Model
from smallcnn.model.probe import output_error
from smallcnn.onnx import export, from_onnx
from smallcnn.onnx.read.reading import read_onnx
from smallcnn.tasks.classification import Classification

quantization = pytest.importorskip("onnxruntime.quantization")
INT8, UINT8, UINT16 = (getattr(quantization.QuantType, name) for name in ("QInt8", "QUInt8", "QUInt16"))

OPTIONS = {
    "per tensor": {"weight_type": INT8, "activation_type": UINT8},
    "per channel": {"weight_type": INT8, "activation_type": UINT8, "per_channel": True},
    "seven bits": {"weight_type": INT8, "per_channel": True, "reduce_range": True},
    "unsigned weights": {"weight_type": UINT8, "activation_type": UINT8},
    "signed activations": {"weight_type": INT8, "activation_type": INT8},
    "symmetric": {
        "weight_type": INT8, "activation_type": INT8, "per_channel": True,
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    },
    "a pair for each reader": {"weight_type": INT8, "extra_options": {"DedicatedQDQPair": True}},
    "weights as a pair": {"weight_type": INT8, "per_channel": True, "extra_options": {"AddQDQPairToWeight": True}},
    "percentile": {"weight_type": INT8, "calibrate_method": quantization.CalibrationMethod.Percentile},
    "float bias": {"weight_type": INT8, "extra_options": {"QuantizeBias": False}},
}  # fmt: skip


class Images(quantization.CalibrationDataReader):
    """Images that calibrate."""

    def __init__(self):
        self.left = iter([{"x": random(1, 3, 5, 6, seed=seed)} for seed in range(8)])

    def get_next(self):
        """The next image, None after the last."""
        return next(self.left, None)


def branching():
    """Two convolutions, of which one goes around the other, summed, pooled and classified."""
    rng = np.random.default_rng(5)
    stored = STORED | {"v": rng.normal(0, 0.5, (4, 4, 1, 1)).astype(np.float32), "c": np.full(4, 0.1, np.float32)}
    nodes = [
        STEM,
        node("Relu", "s", "r"),
        node("Conv", "r v c", "t"),
        node("Add", "t r", "u"),
        node("MaxPool", "u", "m", kernel_shape=[2, 2]),
        *head("m"),
    ]
    return made(nodes, [1, 3, 5, 6], stored)


def by_quantizer(folder, **options):
    (folder / "float.onnx").write_bytes(branching().SerializeToString())
    quantization.quantize_static(folder / "float.onnx", folder / "m.onnx", Images(), **options)
    return onnx.load(folder / "m.onnx")


@pytest.mark.parametrize("name", OPTIONS)
def test_read_as_integers(name, tmp_path):
    model = by_quantizer(tmp_path, **OPTIONS[name])
    read = from_onnx(model)
    assert len(integer_layers(read.graph)) == 3
    x = random(1, 3, 5, 6, seed=9)
    assert output_error(defined(read, x.transpose(0, 2, 3, 1)), answer_as_written(model, x)) < TOLERANCE


def test_float_islands(tmp_path):
    model = by_quantizer(tmp_path, weight_type=INT8, per_channel=True, nodes_to_exclude=["Conv_t"])
    read = from_onnx(model)
    assert len(integer_layers(read.graph)) == 2
    x = random(1, 3, 5, 6, seed=9)
    assert output_error(defined(read, x.transpose(0, 2, 3, 1)), answer_as_written(model, x)) < TOLERANCE


def test_sixteen_bits_are_refused(tmp_path):
    model = by_quantizer(tmp_path, weight_type=INT8, activation_type=UINT16)
    with pytest.raises(FileError, match="stored as UINT16"):
        from_onnx(model)


def test_a_float_file_of_ours_that_another_program_quantized(tmp_path):
    """It keeps its task and preprocessing, and computes with whole numbers like other files."""
    g = Builder(input=(6, 6, 3))
    x = g.activation(g.conv_bn(g.input, 4, kernel=3, name="stem"), "relu")
    graph = g.graph(g.dense(g.global_pool(x), 2, name="classifier"), features=x, name="small")
    model = Model(graph, random_weights(graph), Classification(("cat", "dog")), Preprocessing((6, 6)))
    export(model, tmp_path / "float.onnx")

    class Bytes(Images):
        def __init__(self):
            images = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6, 3), np.uint8)
            self.left = iter([{"images": image} for image in images])

    options = OPTIONS["per channel"] | {"op_types_to_quantize": ["Conv", "Gemm"]}  # not the image's preparation
    quantization.quantize_static(tmp_path / "float.onnx", tmp_path / "m.onnx", Bytes(), **options)
    read = read_onnx(tmp_path / "m.onnx")
    assert read.task.labels == ("cat", "dog")
    assert [n.name for n in read.graph if n.name in integer_layers(read.graph)] == ["stem.conv", "classifier"]
    assert all(read.graph[n.inputs[0]].tensor.number == "uint8" for n in read.graph if n.name == "classifier")
