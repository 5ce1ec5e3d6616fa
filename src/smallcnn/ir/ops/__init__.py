"""The operators of a network: attributes, shape rule, number types and weights.

Shapes are channels last and without the batch: a map is (H, W, C), a vector is (C,), rows are (N, C). Padding is always
explicit numbers, ((top, bottom), (left, right)), so that TensorFlow's asymmetric SAME needs no special case.
Convolution weights are stored as (out, in / groups, kernel height, kernel width) and dense ones as (out, in), as in
PyTorch and ONNX.

Each class is one operator; everything else (cost, module, ONNX, reference) reads these classes.
"""

from dataclasses import MISSING, asdict, fields
from typing import Any

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.detection import AnchorGrid, Count, Detect
from smallcnn.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Add,
    Clip,
    Dropout,
    Exp,
    LocalResponseNorm,
    PRelu,
    Scale,
    Sub,
)
from smallcnn.ir.ops.layers import BatchNorm, Conv, Dense
from smallcnn.ir.ops.moving import Concat, Flatten, Input, Join, Rows, Shuffle, Slice
from smallcnn.ir.ops.numbers import Dequantize, Quantize
from smallcnn.ir.ops.op import NO_PADDING, Op, Padding, Pair, Weight
from smallcnn.ir.ops.plane import Coordinates, GlobalPool, Pad, Pool, Resize, Rounding
from smallcnn.ir.types import Grid, Shape

__all__ = [
    "IN_PLACE", "NO_PADDING", "OPS", "Activation", "ActivationKind", "Add", "AnchorGrid", "BatchNorm", "Clip",
    "Concat", "Conv", "Coordinates", "Count", "Dense", "Dequantize", "Detect", "Dropout", "Exp", "Flatten",
    "GlobalPool", "Input", "Join", "LocalResponseNorm", "Op", "PRelu", "Pad", "Padding", "Pair", "Pool", "Quantize",
    "Resize", "Rounding", "Rows", "Scale", "Shape", "Shuffle", "Slice", "Sub", "Weight", "from_json", "to_json",
]  # fmt: skip

OPS: dict[str, type[Op]] = {op.kind: op for op in Op.__subclasses__()}

IN_PLACE = (BatchNorm, Activation, PRelu, Exp, Clip, Dropout, Flatten)
"""Operators that need no second buffer: an executor may write their result over their input."""


def to_json(op: Op) -> dict[str, Any]:
    """{"op": kind, attribute: value, ...} with tuples as lists once dumped; an attribute at its default is absent.

    So the defaults of the classes are part of the file format.
    """
    values = {field.name: (getattr(op, field.name), field.default) for field in fields(op)}
    return {"op": op.kind} | {name: _record(value) for name, (value, default) in values.items() if value != default}


def _record(value: Any) -> Any:
    """An attribute for JSON: a grid and grids of anchors as objects, all else as it is.

    Scales are the decimals of 9 digits, which tell all float32 apart; zeros are absent if all are 0.
    """
    if isinstance(value, Grid):
        scales = [float(f"{scale:.9g}") for scale in value.scale]
        return {"scale": scales} | ({"zero": value.zero} if any(value.zero) else {})
    if isinstance(value, tuple) and any(isinstance(one, AnchorGrid) for one in value):
        return [asdict(one) for one in value]
    return value


def from_json(record: dict[str, Any]) -> Op:
    """The inverse of `to_json`; GraphError on an unknown operator, a missing or surplus attribute, or a bad value."""
    attributes = dict(record)
    kind = attributes.pop("op", None)
    checks.choice("operator", kind, OPS)
    known = fields(OPS[kind])
    if surplus := sorted(attributes.keys() - {field.name for field in known}):
        names = ", ".join(field.name for field in known) or "none"
        raise GraphError(f"{kind} has no attribute {checks.shown(surplus[0])}; it has {names}")
    if missing := [field.name for field in known if field.default is MISSING and field.name not in attributes]:
        raise GraphError(f"{kind} lacks {', '.join(missing)}")
    return OPS[kind](**{name: _value(name, value) for name, value in attributes.items()})


def _value(name: str, value: Any) -> Any:
    """An attribute as its class has it: a grid, grids of anchors, or lists as tuples, at most two levels deep."""
    if name == "grid":
        if not (isinstance(value, dict) and {"scale"} <= value.keys() <= {"scale", "zero"}):
            raise GraphError(f"a grid needs scale and zero, not {checks.shown(value)}")
        scale = _value("scale", value["scale"])
        zeros = (0,) * len(scale) if isinstance(scale, tuple) else ()
        return Grid(scale, _value("zero", value["zero"]) if "zero" in value else zeros)
    if name == "anchors":
        return tuple(map(_anchors, value)) if isinstance(value, list) else value
    if not isinstance(value, list):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _anchors(record: object) -> AnchorGrid:
    """One grid of anchors."""
    names = {field.name for field in fields(AnchorGrid)}
    if not (isinstance(record, dict) and record.keys() == names):
        raise GraphError(f"a grid of anchors needs {', '.join(sorted(names))}, not {checks.shown(record)}")
    return AnchorGrid(**{name: _value(name, value) for name, value in record.items()})
