"""Evaluates the operators of a file that read only constants: computed shapes, weights that are cast or transposed.

Every result is sized before it is made and charged to a budget, so a small file cannot use much memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.budget import Budget
from smallcnn.foreign.views import Array, along
from smallcnn.ir.checks import shown
from smallcnn.onnx.read.values import MOST_AXES, Attributes, dtype_of, number_type


@dataclass(frozen=True)
class Constants:
    """The inputs of an operator on constants; an omitted input is None."""

    kind: str
    opset: int
    inputs: list[Array | None]
    attributes: Attributes
    outputs: int
    budget: Budget

    def __getitem__(self, index: int) -> Array:
        value = self.get(index)
        if value is None:
            raise FileError(f"lacks input {index + 1}")
        return value

    def get(self, index: int) -> Array | None:
        """An optional input."""
        return self.inputs[index] if index < len(self.inputs) else None

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers that newer operator sets have as an input and older ones as an attribute."""
        value = self.get(index)
        return self.attributes.ints(name) if value is None else whole(value, name)


def whole(value: Array, what: str) -> list[int]:
    """A short list of whole numbers."""
    if value.dtype.kind not in "iu" or value.ndim > 1 or value.size > 1000:
        raise FileError(f"{what} is not a list of whole numbers")
    return [int(number) for number in value.reshape(-1)]


def evaluate(call: Constants) -> list[Array]:
    """The operator's results. FileError if it is unsupported, does not fit its inputs, or exceeds the budget."""
    if call.kind not in _OPERATORS:
        raise FileError(f"computes constants with the operator {shown(call.kind)}, which is not supported")
    try:
        with np.errstate(all="ignore"):
            made = _OPERATORS[call.kind](call)
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"does not fit its constants: {error}") from error
    return [np.asarray(value) for value in made] if isinstance(made, list) else [np.asarray(made)]


def _unary(function: Callable[[Array], Array]) -> Callable[[Constants], Array]:
    def run(call: Constants) -> Array:
        call.budget.spend(call[0].size)
        return function(call[0])

    return run


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Constants], Array]:
    """A function of two inputs, or folded over several; broadcast."""

    def run(call: Constants) -> Array:
        result = call[0]
        for i in range(1, len(call.inputs)):
            call.budget.spend(prod(np.broadcast_shapes(result.shape, call[i].shape)))
            result = function(result, call[i])
        return result

    return run


def _divide(a: Array, b: Array) -> Array:
    """Division; whole numbers round towards zero."""
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise FileError("divides by zero")
    return np.asarray((a - np.fmod(a, b)) // b).astype(a.dtype)


def _constant(call: Constants) -> Array:
    names = ("value", "value_float", "value_int", "value_floats", "value_ints")
    found = [value for name in names if (value := call.attributes.array(name)) is not None]
    if len(found) != 1:
        raise FileError("is a constant without a number or tensor")
    return found[0]


def _constant_of_shape(call: Constants) -> Array:
    shape = whole(call[0], "its shape")
    call.budget.spend(prod(map(abs, shape)))
    value = call.attributes.array("value")
    return np.full(shape, np.float32(0) if value is None else value.reshape(()))


def _cast(call: Constants) -> Array:
    to = call.attributes.number_type("to")
    call.attributes.whole("saturate", 1)
    dtype = dtype_of(to)
    if dtype is None:
        raise FileError(f"casts to {number_type(to)}")
    call.budget.spend(call[0].size)
    return call[0].astype(dtype)


def _cast_like(call: Constants) -> Array:
    call.budget.spend(call[0].size)
    return call[0].astype(call[1].dtype)


def _clip(call: Constants) -> Array:
    call.budget.spend(call[0].size)
    low, high = call.get(1), call.get(2)
    result = call[0] if low is None else np.maximum(call[0], low.reshape(()))
    return result if high is None else np.minimum(result, high.reshape(()))


def _concat(call: Constants) -> Array:
    parts = [call[i] for i in range(len(call.inputs))]
    call.budget.spend(sum(part.size for part in parts))
    return np.concatenate(parts, call.attributes.whole("axis", 1 if call.opset < 4 else None))


def _gather(call: Constants) -> Array:
    axis, data, index = call.attributes.whole("axis", 0), call[0], call[1]
    call.budget.spend(data.size // max(data.shape[axis], 1) * index.size)
    return np.take(data, index, axis)


def _range(call: Constants) -> Array:
    start, stop, step = (float(call[i].reshape(())) for i in range(3))
    call.budget.spend(max(ceil((stop - start) / step), 0))
    return np.arange(start, stop, step).astype(call[0].dtype)


def _expand(call: Constants) -> Array:
    shape = np.broadcast_shapes(call[0].shape, tuple(whole(call[1], "its shape")))
    call.budget.spend(prod(shape))
    return np.broadcast_to(call[0], shape)


def _where(call: Constants) -> Array:
    call.budget.spend(prod(np.broadcast_shapes(*(call[i].shape for i in range(3)))))
    return np.where(call[0], call[1], call[2])


def _transpose(call: Constants) -> Array:
    return np.transpose(call[0], call.attributes.ints("perm"))


def _shape(call: Constants) -> Array:
    start, end = call.attributes.whole("start", 0), call.attributes.whole("end", MOST_AXES)
    return np.array(call[0].shape[start:end], np.int64)


def _reshape(call: Constants) -> Array:
    wanted = call.numbers(1, "shape") or []
    call.budget.spend(call[0].size)
    return call[0].reshape(target_shape(call[0].shape, wanted, call.attributes.whole("allowzero", 0)))


def _squeeze(call: Constants) -> Array:
    axes = call.numbers(1, "axes")
    return np.squeeze(call[0], None if axes is None else tuple(axes))


def _unsqueeze(call: Constants) -> Array:
    return np.expand_dims(call[0], tuple(call.numbers(1, "axes") or ()))


def _slice(call: Constants) -> Array:
    index: list[Any] = [slice(None)] * call[0].ndim
    for axis, part in slices(call, call[0].ndim).items():
        index[axis] = part
    return call[0][tuple(index)]


def _flatten(call: Constants) -> Array:
    axis = call.attributes.whole("axis", 1)
    call.budget.spend(call[0].size)
    return call[0].reshape(prod(call[0].shape[:axis]), -1)


def _reduce(function: Callable[..., Array]) -> Callable[[Constants], Array]:
    def run(call: Constants) -> Array:
        axes = call.numbers(1, "axes")
        keep = bool(call.attributes.whole("keepdims", 1))
        if call.attributes.whole("noop_with_empty_axes", 0) and not axes:
            return call[0]
        return np.asarray(function(call[0], axis=tuple(axes) if axes else None, keepdims=keep)).astype(call[0].dtype)

    return run


def slices(call: Constants, axes_there: int) -> dict[int, slice]:
    """The slices of Slice by axis; `call` has its inputs or, in old operator sets, attributes."""
    starts, ends, axes = call.numbers(1, "starts"), call.numbers(2, "ends"), call.numbers(3, "axes")
    steps = whole(given, "steps") if (given := call.get(4)) is not None else None
    if starts is None or ends is None:
        raise FileError("lacks its starts or ends")
    axes = list(range(len(starts))) if axes is None else [along(axis, axes_there) for axis in axes]
    steps = steps or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(set(axes)) == len(steps) or max(axes, default=0) >= axes_there:
        raise FileError("has starts, ends, axes and steps that do not fit each other")
    return {axis: slice(*part) for axis, *part in zip(axes, starts, ends, steps, strict=True)}


def target_shape(shape: tuple[int, ...], wanted: list[int], allow_zero: int) -> list[int]:
    """The result shape of Reshape: 0 stands for the old length, -1 for the rest."""
    if len(wanted) > MOST_AXES:
        raise FileError(f"reshapes to {len(wanted)} axes")
    result = [shape[i] if size == 0 and not allow_zero and i < len(shape) else size for i, size in enumerate(wanted)]
    known = prod(size for size in result if size != -1)
    if result.count(-1) > 1 or min(result, default=0) < -1 or (-1 in result and (not known or prod(shape) % known)):
        raise FileError(f"cannot reshape {shown(shape)} to {shown(wanted)}")
    return [prod(shape) // known if size == -1 else size for size in result]


_OPERATORS: dict[str, Callable[[Constants], Array | list[Array]]] = {
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _unary(np.floor),
    "Gather": _gather,
    "Greater": _binary(np.greater),
    "Identity": lambda call: call[0],
    "Less": _binary(np.less),
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _binary(np.logical_or),
    "Range": _range,
    "Reciprocal": _unary(np.reciprocal),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: np.array(call[0].size),
    "Slice": _slice,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
