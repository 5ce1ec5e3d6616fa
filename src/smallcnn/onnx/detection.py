"""The ONNX form of a detector's end: plain operators decode, the standard NonMaxSuppression chooses.

That operator gives as many rows as it keeps, for the whole batch. Their scores are scattered into a table that is zero
elsewhere, (N, classes, anchors); its largest entries are the result, so every shape but the batch is known beforehand.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto, helper

from smallcnn.ir import ops
from smallcnn.reference.detection import anchors


class Emitter(Protocol):
    """Adds ONNX nodes and stored tensors, see `nodes.Nodes`."""

    def emit(
        self,
        kind: str,
        inputs: list[str],
        name: str | None = None,
        *,
        label: str | None = None,
        more: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """Adds a node, whose outputs after the first are called `more`; the name of the first."""

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a stored tensor; its name."""


def detect(nodes: Emitter, op: ops.Detect, inputs: list[str], classes: int, name: str) -> str:
    """Code (N, anchors, 4), scores (N, anchors, C) [, objectness (N, anchors, 1)] -> (N, most, 6), for so many
    `classes` of objects.

    `name`.threshold, .overlap and .most are stored tensors of their own, so that another program can change them.
    """
    coded, scores, *objectness = inputs
    boxes = _boxes(nodes, op, coded, name)
    likely = _likely(nodes, op, scores, objectness, name)  # (N, anchors, classes)
    best = None
    if op.across:
        best = nodes.emit("ArgMax", [likely], axis=2, keepdims=0)
        likely = nodes.emit("ReduceMax", [likely], axes=[2], keepdims=1)
    table = nodes.emit("Transpose", [likely], perm=[0, 2, 1])
    limits = [
        nodes.constant(f"{name}.most", np.array([op.most])),
        nodes.constant(f"{name}.overlap", np.array([op.overlap], np.float32)),
        nodes.constant(f"{name}.threshold", np.array([op.threshold], np.float32)),
    ]
    kept = nodes.emit("NonMaxSuppression", [boxes, table, *limits])  # (rows, 3): image, class, anchor
    zeros = nodes.emit("ConstantOfShape", [nodes.emit("Shape", [table])], value=_scalar(0.0))
    table = nodes.emit("ScatterND", [zeros, kept, nodes.emit("GatherND", [table, kept])])
    table = nodes.emit("Reshape", [table, nodes.constant(f"{name}.flat", np.array([0, -1]))])
    return _first(nodes, op, table, boxes, best, 1 if op.across else classes, name)


def _first(nodes: Emitter, op: ops.Detect, table: str, boxes: str, best: str | None, classes: int, name: str) -> str:
    """The rows of the largest entries of a table (N, classes * anchors); those of zero are zero."""
    rows = min(op.most, classes * op.anchor_count)
    score, place = f"{name}/score", f"{name}/place"
    nodes.emit("TopK", [table, nodes.constant(f"{name}.rows", np.array([rows]))], score, more=(place,), axis=1)
    count = nodes.constant(f"{name}.anchors", np.array(op.anchor_count))
    anchor = nodes.emit("Mod", [place, count])
    number = nodes.emit("GatherElements", [best, anchor], axis=1) if best else nodes.emit("Div", [place, count])
    last = nodes.constant("/last", np.array([2]))
    box = nodes.emit("GatherND", [boxes, nodes.emit("Unsqueeze", [anchor, last])], batch_dims=1)
    number = nodes.emit("Cast", [nodes.emit("Unsqueeze", [number, last])], to=TensorProto.FLOAT)
    score = nodes.emit("Unsqueeze", [score, last])
    fields = nodes.emit("Concat", [box, score, number], axis=2)
    real = nodes.emit("Greater", [score, nodes.constant("/nothing", np.zeros((), np.float32))])
    if rows == op.most:
        return nodes.emit("Mul", [fields, nodes.emit("Cast", [real], to=TensorProto.FLOAT)], name)
    fields = nodes.emit("Mul", [fields, nodes.emit("Cast", [real], to=TensorProto.FLOAT)])
    margins = nodes.constant(f"{name}.margins", np.array([0, 0, 0, 0, op.most - rows, 0]))
    return nodes.emit("Pad", [fields, margins], name)


def count(nodes: Emitter, inputs: list[str], name: str) -> str:
    """The number of entries above 0, (N, 1)."""
    above = nodes.emit("Greater", [inputs[0], nodes.constant("/nothing", np.zeros((), np.float32))])
    flat = nodes.emit("Flatten", [nodes.emit("Cast", [above], to=TensorProto.FLOAT)])
    return nodes.emit("ReduceSum", [flat, nodes.constant("/first", np.array([1]))], name)


def _boxes(nodes: Emitter, op: ops.Detect, coded: str, name: str) -> str:
    """Left, top, right, bottom of the coded boxes, (N, anchors, 4)."""
    place = anchors(op)[None]
    shift, grown = (
        nodes.emit("Gather", [coded, nodes.constant(f"{name}.{key}", np.array(columns))], axis=2)
        for key, columns in (("places", [1, 0] if op.y_first else [0, 1]), ("sizes", [3, 2] if op.y_first else [2, 3]))
    )
    if op.centre == "tanh":
        shift = nodes.emit("Tanh", [shift])
    step = nodes.constant(f"{name}.step", np.float32(op.centre_scale) * place[..., 2:])
    centre = nodes.emit("Add", [nodes.emit("Mul", [shift, step]), nodes.constant(f"{name}.centre", place[..., :2])])
    grown = nodes.emit("Mul", [grown, nodes.constant(f"{name}.size_scale", np.array(op.size_scale, np.float32))])
    match op.size:
        case "exp":
            limit = nodes.constant(f"{name}.limit", np.array(op.EXP_LIMIT, np.float32))
            grown = nodes.emit("Exp", [nodes.emit("Min", [grown, limit])])
        case "sigmoid":
            grown = nodes.emit("Sigmoid", [grown])
        case "linear":
            grown = nodes.emit("Relu", [grown])
    half = nodes.emit("Mul", [grown, nodes.constant(f"{name}.half", place[..., 2:] / 2)])
    boxes = nodes.emit("Concat", [nodes.emit("Sub", [centre, half]), nodes.emit("Add", [centre, half])], axis=2)
    if not op.clip:
        return boxes
    bounds = [
        nodes.constant(f"{name}.{key}", np.array(value, np.float32)) for key, value in (("least", 0), ("largest", 1))
    ]
    return nodes.emit("Clip", [boxes, *bounds])


def _likely(nodes: Emitter, op: ops.Detect, scores: str, objectness: list[str], name: str) -> str:
    """The score of every anchor for every class of objects, (N, anchors, classes)."""
    if op.score == "sigmoid":
        scores = nodes.emit("Sigmoid", [scores])
    if op.score == "softmax":
        scores = nodes.emit("Softmax", [scores], axis=2)
    if op.background:
        ends = [nodes.constant(f"{name}.{key}", np.array([value])) for key, value in (("first", 1), ("end", 2**31 - 1))]
        scores = nodes.emit("Slice", [scores, *ends, nodes.constant("/last", np.array([2]))])
    if not objectness:
        return scores
    power = op.objectness_power
    exponents = [
        nodes.constant(f"{name}.{key}", np.array(p, np.float32)) for key, p in (("own", power), ("class", 1 - power))
    ]
    own = nodes.emit("Pow", [objectness[0], exponents[0]])
    return nodes.emit("Mul", [own, nodes.emit("Pow", [nodes.emit("Relu", [scores]), exponents[1]])])


def _scalar(value: float) -> Any:
    return helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
