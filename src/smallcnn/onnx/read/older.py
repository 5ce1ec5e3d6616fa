"""Operator sets 1 to 6: converts their attributes to the form of newer sets.

Operands were broadcast only if an attribute said so, the second aligned with an `axis` of the first; batch norm and
dropout had a training flag; some operators named the inputs that they overwrite.
"""

from dataclasses import replace
from typing import TypeGuard

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array, View, along
from smallcnn.onnx.read.call import Value
from smallcnn.onnx.read.values import Attributes

FIRST_MODERN = 7

_BROADCAST = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")


def modernised(kind: str, values: list[Value | None], attributes: Attributes) -> list[Value | None]:
    """The inputs in the form of newer sets; consumes attributes that only older sets have."""
    attributes.drop("consumed_inputs")
    if kind in ("BatchNormalization", "Dropout"):
        attributes.drop("is_test")  # outputs needed only in training are unused, or refused elsewhere
    if kind == "Gemm":
        attributes.drop("broadcast")
    if kind not in _BROADCAST:
        return values
    aligned = attributes.has("axis")
    axis, broadcast = attributes.whole("axis", -1), attributes.whole("broadcast", 0)
    first, second = (*values, None, None)[:2]
    if not (aligned and broadcast) or not _has_axes(first) or not _has_axes(second):
        return values
    axes, own = _axes(first), _axes(second)
    after = axes - along(axis, axes) - own
    if after < 0:
        raise FileError(f"broadcasts {own} axes from axis {axis} of {axes}")
    return [first, _with_axes_after(second, after)]


def _has_axes(value: Value | None) -> TypeGuard[View | Array]:
    return isinstance(value, View | Array)


def _axes(value: View | Array) -> int:
    return len(value.dims) if isinstance(value, View) else value.ndim


def _with_axes_after(value: View | Array, count: int) -> View | Array:
    if isinstance(value, View):
        return replace(value, dims=value.dims + ((),) * count)
    return value.reshape(value.shape + (1,) * count)
