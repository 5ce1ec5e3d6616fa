"""Every network as an ONNX file: what it costs, stores and answers, read from the file alone."""

from math import prod

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from networks import random_weights
from smallcnn.cost.profile import profile
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model.model import Model
from smallcnn.model.probe import output_error
from smallcnn.module import to_module, to_weights
from smallcnn.onnx import to_onnx
from smallcnn.tasks.classification import Classification
from zoo_models import MODELS, build

PLANE = (40, 33)  # halved five times: 20 10 5 3 2 and 17 9 5 3 2, so that windows meet even and odd sides
PLANES = {"alexnet": (72, 65)}  # its last pool needs 64 pixels
CLASSES = 7

TOLERANCE = 1e-5
"""float32 against float64: about 1e-7 * sqrt(terms), sums of a few thousand terms, tens of layers."""

VISIBLE = 1e-2
"""How far the answers to two images are apart, of the largest: a wrong first layer moves the answer as much."""


def images(graph: Graph, count: int, seed: int) -> np.ndarray:
    """uint8 (N, H, W, C), as the file takes them."""
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input_shape), np.uint8)


def normalised(batch: np.ndarray) -> torch.Tensor:
    """(N, C, H, W), as the module takes them: (x / 255 - 0.5) / 0.5."""
    return torch.from_numpy((batch / 127.5 - 1).transpose(0, 3, 1, 2).copy())


def lively_weights(graph: Graph) -> dict[str, np.ndarray]:
    """Random ones, with batch norm's statistics measured on four images, and shifts that open most activations.

    With statistics made up, fifty layers leave nothing of the image: the answer is the same whatever the first ones
    do. With statistics measured and half of all activations closed, they blow rounding up instead, as chaos does.
    """
    weights = random_weights(graph)
    for name, value in weights.items():
        node, _, key = name.rpartition(".")
        if value.ndim > 1:
            weights[name] = value * 2**0.5  # a ReLU takes half of the variance (He et al.)
        elif key == "weight":
            weights[name] = np.abs(value) + 0.5
        elif key == "bias":
            weights[name] = value * 0.1 + (1.5 if f"{node}.running_var" in weights else 0)
    module = to_module(graph, weights).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    with torch.no_grad():
        module(normalised(images(graph, 4, seed=2)).float())
    return to_weights(module)


class Exported:
    """A network and its file, with the shapes that ONNX's own inference finds in it, without the batch."""

    def __init__(self, text: str) -> None:
        plane = PLANES.get(text.partition(":")[0], PLANE)
        self.graph = build(text, resolution=plane, classes=CLASSES)
        self.weights = lively_weights(self.graph)
        labels = tuple(f"class {i}" for i in range(CLASSES))
        self.file = to_onnx(Model(self.graph, self.weights, Classification(labels), Preprocessing(plane)))
        inferred = onnx.shape_inference.infer_shapes(self.file, strict_mode=True).graph
        self.computed = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
            for value in (*inferred.value_info, *inferred.output)
        }
        self.stored = {tensor.name: tuple(tensor.dims) for tensor in self.file.graph.initializer}

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.file.graph.node if node.op_type in kinds]


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    return Exported(request.param)


def test_cost(exported):
    """Each output element of a convolution or dense layer sums as many products as its filter has weights."""
    layers = exported.nodes("Conv", "Gemm")
    mult_adds = sum(
        prod(exported.computed[layer.output[0]]) * prod(exported.stored[layer.input[1]][1:]) for layer in layers
    )
    assert all(layer.attribute[0].name == "transB" for layer in exported.nodes("Gemm")), "(out, in)"
    assert mult_adds == profile(exported.graph).mult_adds


def test_size(exported):
    """Batch norm is gone but where it follows no layer that could take it in; the exporter's own numbers are few."""
    learned = {name for layer in exported.nodes("Conv", "Gemm", "BatchNormalization") for name in layer.input[1:]}
    assert sum(prod(exported.stored[name]) for name in learned) == profile(exported.graph).weight_bytes / 4
    assert all(prod(shape) <= 8 for name, shape in exported.stored.items() if name not in learned)


def test_answer(exported):
    batch = images(exported.graph, 2, seed=3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        exported.file.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"images": batch})
    with torch.no_grad():
        wanted = to_module(exported.graph, exported.weights).eval().double()(normalised(batch)).numpy()
    assert output_error(wanted[0], wanted[1]) > VISIBLE
    assert output_error(got, wanted) < TOLERANCE
