"""Engines rewrite what they are given, sometimes wrongly: every pair of operators, at every level of optimisation.

ONNX Runtime, for one, moves zeros around a map into the max pool after it, whose own padding is minus infinity.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest

from networks import random_weights
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Node
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_image
from smallcnn.onnx import to_onnx
from smallcnn.reference import floating as reference
from smallcnn.tasks.classification import Classification

SIDE, CHANNELS = 8, 8
Apply = Callable[[Builder, Node], Node]

MAPS: dict[str, Apply] = {
    "conv": lambda g, x: g.conv(x, 8, kernel=3),
    "conv bare": lambda g, x: g.conv(x, 8, kernel=1, bias=False),
    "conv lopsided": lambda g, x: g.conv(x, 8, kernel=3, stride=2, padding=((0, 1), (2, 0))),
    "conv grouped": lambda g, x: g.conv(x, 8, kernel=3, groups=2),
    "depthwise": lambda g, x: g.depthwise(x, kernel=3),
    "norm": lambda g, x: g.batch_norm(x),
    "relu": lambda g, x: g.activation(x, "relu"),
    "relu6": lambda g, x: g.activation(x, "relu6"),
    "leaky relu": lambda g, x: g.activation(x, "leaky_relu", slope=0.2),
    "hard swish": lambda g, x: g.activation(x, "hard_swish"),
    "hard sigmoid": lambda g, x: g.activation(x, "hard_sigmoid"),
    "sigmoid": lambda g, x: g.activation(x, "sigmoid"),
    "clip": lambda g, x: g.clip(x, -0.8, 1.5),
    "clip below 0": lambda g, x: g.clip(x, -2.0, -0.1),
    "pad": lambda g, x: g.pad(x, ((1, 1), (1, 1))),
    "pad one side": lambda g, x: g.pad(x, ((0, 1), (0, 1))),
    "crop": lambda g, x: g.pad(x, ((-1, 0), (0, -1))),
    "pad and crop": lambda g, x: g.pad(x, ((-1, 1), (1, -1))),
    "max": lambda g, x: g.max_pool(x, kernel=3, stride=1, padding=((1, 1), (1, 1))),
    "max bare": lambda g, x: g.max_pool(x, kernel=2, stride=2, padding=((0, 0), (0, 0))),
    "mean": lambda g, x: g.average_pool(x, kernel=3, stride=1, padding=((1, 1), (1, 1))),
    "mean counting": lambda g, x: g.average_pool(x, kernel=3, stride=1, padding=((1, 1), (0, 1)), count_padding=True),
    "mean bare": lambda g, x: g.average_pool(x, kernel=2, stride=2, padding=((0, 0), (0, 0))),
    "response norm": lambda g, x: g.local_response_norm(x, size=3, alpha=0.5, beta=0.75, bias=1.0),
    "shuffle": lambda g, x: g.shuffle(x, 2),
    "slice": lambda g, x: g.concat(*g.split(x, (2, x.shape[2] - 2))[::-1]),
    "add": lambda g, x: g.add(x, x),
    "gate": lambda g, x: g.scale(x, g.activation(g.dense(g.global_pool(x), x.shape[2]), "hard_sigmoid")),
    "dropout": lambda g, x: g.dropout(x, 0.5),
}

VECTORS: dict[str, Apply] = {
    "dense": lambda g, x: g.dense(x, 8),
    "dense bare": lambda g, x: g.dense(x, 8, bias=False),
    "concat": lambda g, x: g.concat(*g.split(x, (3, 5))),
    **{name: MAPS[name] for name in ("norm", "relu", "relu6", "leaky relu", "hard swish", "hard sigmoid", "sigmoid",
                                     "clip", "clip below 0", "add", "dropout")},
}  # fmt: skip

FLAT: dict[str, Apply] = {"global pool": lambda g, x: g.global_pool(x), "flatten": lambda g, x: g.flatten(x)}


def pairs(first: str) -> list[tuple[str, list[Apply]]]:
    """What comes after `first`, as names and chains of operators from a map to a vector."""
    if first in FLAT:
        start: list[Apply] = [FLAT[first]]
        return [(after, [*start, VECTORS[after]]) for after in VECTORS if first == "global pool" or after != "concat"]
    if first.startswith("vector "):
        start = [FLAT["global pool"], VECTORS[first.removeprefix("vector ")]]
        return [(after, [*start, VECTORS[after]]) for after in VECTORS]
    after_maps = [(after, [MAPS[first], MAPS[after], FLAT["flatten"]]) for after in MAPS]
    return after_maps + [(after, [MAPS[first], FLAT[after]]) for after in FLAT]


FIRST = [*MAPS, *FLAT, *(f"vector {name}" for name in VECTORS)]


@cache
def network(first: str) -> tuple[Model, list[str], list[int], np.ndarray, np.ndarray]:
    """One network with a branch per pair, the pairs' names, where their outputs end, an image, the right answer.

    Each branch starts from a convolution of its own, whose results are below 0 as often as above: engines would
    otherwise see that several branches compute the same.
    """
    g = Builder(input=(SIDE, SIDE, 3))
    names, ends, outputs = [], [], []
    for after, chain in pairs(first):
        x = g.conv(g.input, CHANNELS, kernel=1)
        for apply in chain:
            x = apply(g, x)
        names.append(f"{first}, {after}")
        outputs.append(x)
        ends.append((ends[-1] if ends else 0) + x.shape[0])
    graph = g.graph(g.concat(*outputs), features=g.input, name="pairs")
    labels = tuple(map(str, range(graph.output_shape[0])))
    model = Model(graph, random_weights(graph), Classification(labels), Preprocessing((SIDE, SIDE)))
    image = probe_image(graph.input_shape)
    return model, names, ends, image, reference.answer(graph, model.weights, model.preprocessing.normalise(image))[0]


def check(first: str, got: np.ndarray) -> None:
    """Every pair by itself, so that a large answer hides no wrong small one."""
    _, names, ends, _, wanted = network(first)
    wrong = []
    for name, a, b in zip(names, np.split(got, ends[:-1]), np.split(wanted, ends[:-1]), strict=True):
        error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)
        if not error <= 1e-5:  # float32, sums of at most 72 products
            wrong.append(f"{name}: {error:.1e}")
    assert not wrong


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
@pytest.mark.parametrize("first", FIRST)
def test_onnxruntime(first, level):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(content(first), options, providers=["CPUExecutionProvider"])
    check(first, session.run(None, {"images": network(first)[3]})[0][0])


@cache
def content(first: str) -> bytes:
    return to_onnx(network(first)[0]).SerializeToString()


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
@pytest.mark.parametrize("first", FIRST)
def test_openvino(first):
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(content(first)), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    check(first, compiled([network(first)[3]])[0][0])
