"""The operators of a network: attributes, shape rule, number types and weights.

Shapes are channels last and without the batch: a map is (H, W, C), a vector is (C,). Padding is always explicit
numbers, ((top, bottom), (left, right)), so that TensorFlow's asymmetric SAME needs no special case. Convolution weights
are stored as (out, in / groups, kernel height, kernel width) and dense ones as (out, in), as in PyTorch and ONNX.

Each class is one operator; everything else (cost, module, ONNX, reference) reads these classes.
"""

from dataclasses import MISSING, asdict, fields
from typing import Any

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Add,
    Clip,
    Dropout,
    LocalResponseNorm,
    Scale,
)
from smallcnn.ir.ops.layers import BatchNorm, Conv, Dense
from smallcnn.ir.ops.moving import Concat, Flatten, Input, Shuffle, Slice
from smallcnn.ir.ops.numbers import Dequantize, Quantize
from smallcnn.ir.ops.op import NO_PADDING, Op, Padding, Pair, Weight
from smallcnn.ir.ops.plane import GlobalPool, Pad, Pool
from smallcnn.ir.types import Grid, Shape

__all__ = [
    "IN_PLACE", "NO_PADDING", "OPS", "Activation", "ActivationKind", "Add", "BatchNorm", "Clip", "Concat", "Conv",
    "Dense", "Dequantize", "Dropout", "Flatten", "GlobalPool", "Input", "LocalResponseNorm", "Op", "Pad", "Padding",
    "Pair", "Pool", "Quantize", "Scale", "Shape", "Shuffle", "Slice", "Weight", "from_json", "to_json",
]  # fmt: skip

OPS: dict[str, type[Op]] = {op.kind: op for op in Op.__subclasses__()}

IN_PLACE = (BatchNorm, Activation, Clip, Dropout, Flatten)
"""Operators that need no second buffer: an executor may write their result over their input."""


def to_json(op: Op) -> dict[str, Any]:
    """{"op": kind, attribute: value, ...} with tuples as lists once dumped; a grid is absent where there is none."""
    values = asdict(op)
    if values.get("grid", ...) is None:
        del values["grid"], values["number"]
    return {"op": op.kind} | values


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
    """An attribute as its class has it: a grid, or lists as tuples, two levels deep, the most an attribute may have."""
    if name == "grid":
        if not (isinstance(value, dict) and value.keys() == {"scale", "zero"}):
            raise GraphError(f"a grid needs scale and zero, not {checks.shown(value)}")
        return Grid(*(_value(key, value[key]) for key in ("scale", "zero")))
    if not isinstance(value, list):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)
