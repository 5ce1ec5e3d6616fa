"""A TensorFlow Lite file as plain values: tensors, and operators in execution order.

Read with the `tflite` schema package; nothing is executed. Only this module touches the flatbuffer, whose accessors may
raise anything on a wrong offset.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.errors import FileError, require
from smallcnn.ir.checks import shown
from smallcnn.ir.types import Grid as IntegerGrid

Array = np.ndarray

_MOST_OPERATORS = 10_000
_MOST_ENDS = 1_000  # inputs or outputs of one operator
_MOST_AXES = 8
_MOST_BYTES = 2**31 - 1
"""Largest buffer that the format's 32-bit offsets allow."""

_NUMBERS = {
    "FLOAT32": np.float32, "FLOAT16": np.float16, "FLOAT64": np.float64, "BOOL": np.bool_,
    "UINT8": np.uint8, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
}  # fmt: skip
_GRIDS = ("UINT8", "INT8", "INT16")
_LEAST_SCALE = 2.0**-100
"""Of weights that are kept as whole numbers: products of scales are then float32's normal numbers."""

_WINDOW = ("StrideH", "StrideW", "Padding", "FusedActivationFunction")
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "LOCAL_RESPONSE_NORMALIZATION": ("LocalResponseNormalizationOptions", ("Radius", "Bias", "Alpha", "Beta")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "SPLIT": ("SplitOptions", ("NumSplits",)),
    "STRIDED_SLICE": (
        "StridedSliceOptions", ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
}  # fmt: skip
"""The settings read for each operator, by their schema names."""
DETECTION = "TFLite_Detection_PostProcess"
_CUSTOM: dict[str, tuple[str, ...]] = {
    DETECTION: (
        "x_scale", "y_scale", "w_scale", "h_scale", "max_detections", "max_classes_per_detection", "num_classes",
        "detections_per_class", "nms_iou_threshold", "nms_score_threshold", "use_regular_nms",
    ),
}  # fmt: skip
"""The same for operators that are not in the schema; they store settings as a FlexBuffer."""


@dataclass(frozen=True)
class Grid:
    """The values of a quantized tensor: scale * (code - zero) for the codes 0 to `last`."""

    scale: float
    zero: int
    last: int = 255

    @property
    def low(self) -> float:
        """The smallest value."""
        return -self.scale * self.zero

    @property
    def high(self) -> float:
        """The largest value."""
        return self.scale * (self.last - self.zero)


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape with the batch, number type, quantization, and its bytes if it is a constant.

    `scales` and `zeros` have one entry, or one per slice along `axis`; None for a tensor that is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    number: str
    data: Array | None
    scales: Array | None
    zeros: Array | None
    axis: int

    @property
    def grid(self) -> Grid | None:
        """The values a quantized tensor can hold; None for a float one. Codes count from 0, also for int8."""
        if self.number in ("FLOAT32", "FLOAT16"):
            return None
        if self.number not in _GRIDS:
            raise FileError(f"{shown(self.name)} holds {self.number}, which is neither float nor quantized")
        scales, zeros = self.quantization()
        limits = np.iinfo(_NUMBERS[self.number])
        scale, zero = float(scales[0]), int(zeros[0]) - int(limits.min)
        last = int(limits.max) - int(limits.min)
        if len(scales) > 1 or not (isfinite(scale) and scale > 0 and 0 <= zero <= last):
            raise FileError(f"{shown(self.name)} has scale {shown(scales.tolist())} and zero point {zeros[0]:g}")
        return Grid(scale, zero, last)

    def quantization(self) -> tuple[Array, Array]:
        """Scales and zero points, float64. FileError if there are none."""
        if self.scales is None or self.zeros is None:
            raise FileError(f"the integer tensor {shown(self.name)} has no scale")
        return self.scales, self.zeros

    def stored(self) -> Array:
        """The constant as stored. FileError if this is not a constant."""
        if self.number not in _NUMBERS:
            raise FileError(f"the constant {shown(self.name)} holds {self.number}, which is not supported")
        kind = np.dtype(_NUMBERS[self.number])
        if self.data is None:
            raise FileError(f"{shown(self.name)} must be a constant")
        if self.data.size != prod(self.shape) * kind.itemsize:
            raise FileError(f"the constant {shown(self.name)} has {self.data.size} bytes for {shown(self.shape)}")
        return self.data.view(kind).reshape(self.shape)

    def on_grid(self, axis: int) -> IntegerGrid | None:
        """The grid of a constant of bytes, of one entry or one per slice along `axis`; None if it has no such grid."""
        if self.number not in ("UINT8", "INT8") or self.scales is None or self.zeros is None:
            return None
        usable = ((self.scales >= _LEAST_SCALE) & np.isfinite(self.scales) & (self.zeros == np.rint(self.zeros))).all()
        if not usable or (len(self.scales) > 1 and (self.axis != axis or self.shape[axis] != len(self.scales))):
            return None
        return IntegerGrid(tuple(map(float, self.scales)), tuple(int(zero) for zero in self.zeros))

    def real(self) -> Array:
        """A constant as float32, scale * (code - zero) where it is quantized; exact, in float64, if it is of int32."""
        array = self.stored()
        if array.dtype.kind == "f":
            return array.astype(np.float32)
        scales, zeros = self.quantization()
        if len(scales) > 1:  # a vector may name the axis of the weights it belongs to
            axis = self.axis if array.ndim > 1 else 0
            if not (0 <= axis < array.ndim and array.shape[axis] == len(scales)):
                raise FileError(f"{shown(self.name)} of {shown(self.shape)} has {len(scales)} scales on axis {axis}")
            shape = [1] * array.ndim
            shape[axis] = len(scales)
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        real = (array.astype(np.float64) - zeros) * scales
        return real if array.dtype == np.int32 else real.astype(np.float32)


def check_image(tensor: Tensor) -> None:
    """Raises FileError unless the tensor holds floats or bytes, as an image must."""
    if tensor.number not in ("FLOAT32", "FLOAT16", "UINT8", "INT8"):
        raise FileError(f"takes {tensor.number}; an image is floats or bytes")


@dataclass(frozen=True)
class Operator:
    """One operator: its kind in the schema, tensor numbers (-1 for an omitted input), settings."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float]


@dataclass(frozen=True)
class File:
    """A file's only graph. `metadata` holds the additional named buffers."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes]


def read_bytes(path: Path) -> bytes:
    """The file's content. FileError if it cannot be read or is larger than the format allows."""
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise FileError(f"{path.stat().st_size:,} bytes; a TensorFlow Lite file has at most {_MOST_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read ({error.strerror})") from error


def parse(content: bytes) -> File:
    """The file's values. Raises FileError if it is damaged, of another kind, or holds several graphs."""
    require("reading a .tflite file", "import", "tflite")
    if content[4:8] != b"TFL3":
        raise FileError("not a TensorFlow Lite file")
    with _damaged():
        return _parse(content)


@contextmanager
def _damaged() -> Iterator[None]:
    """Turns any error of the flatbuffer's accessors into a FileError."""
    try:
        yield
    except FileError:
        raise
    except (struct.error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FileError("damaged: its offsets are invalid") from error


def _parse(content: bytes) -> File:
    import tflite

    model = tflite.Model.GetRootAsModel(content, 0)
    if model.SubgraphsLength() != 1:
        raise FileError(f"{model.SubgraphsLength()} subgraphs; only one is supported")
    graph = model.Subgraphs(0)
    left = len(content)  # characters that names may have in all

    def text(value: bytes | None) -> str:
        nonlocal left
        left -= len(value or b"")
        if left < 0:
            raise FileError("damaged: its names are longer than the file")
        return (value or b"").decode(errors="replace")

    numbers = _names(tflite.TensorType)
    tensors = [_tensor(content, model, graph.Tensors(i), text, numbers) for i in range(_count(graph.TensorsLength()))]
    codes = _names(tflite.BuiltinOperator)
    operators = [
        _operator(model, graph.Operators(i), len(tensors), codes, text) for i in range(_count(graph.OperatorsLength()))
    ]
    metadata = {}
    for i in range(min(model.MetadataLength(), 100)):
        entry = model.Metadata(i)
        data = _data(content, model.Buffers(entry.Buffer()))
        metadata[text(entry.Name())] = b"" if data is None else data.tobytes()
    inputs, outputs = (_numbers(graph, side, len(tensors)) for side in ("Inputs", "Outputs"))
    return File(tuple(tensors), tuple(operators), inputs, outputs, metadata)


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def _count(length: int) -> int:
    if length > _MOST_OPERATORS:
        raise FileError(f"{length} operators or tensors; at most {_MOST_OPERATORS} are supported")
    return length


def _numbers(table: Any, side: str, tensors: int) -> tuple[int, ...]:
    """Tensor numbers of `side`, Inputs or Outputs."""
    if getattr(table, f"{side}Length")() > _MOST_ENDS:
        raise FileError(f"damaged: more than {_MOST_ENDS} {side.lower()} in one list")
    array = getattr(table, f"{side}AsNumpy")()
    numbers = tuple(map(int, array)) if isinstance(array, np.ndarray) else ()
    if any(not -1 <= number < tensors for number in numbers):
        raise FileError(f"damaged: {shown(numbers)} among {tensors} tensors")
    return numbers


def _tensor(content: bytes, model: Any, tensor: Any, text: Any, numbers: Mapping[int, str]) -> Tensor:
    if tensor.ShapeLength() > _MOST_AXES:
        raise FileError(f"damaged: a tensor of {tensor.ShapeLength()} axes")
    shape = tuple(map(int, tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
    if tensor.Sparsity() is not None:
        raise FileError(f"{shown(text(tensor.Name()))} is stored sparsely, which is not supported")
    data = _data(content, model.Buffers(tensor.Buffer())) if tensor.Buffer() else None
    scales = zeros = None
    quantization, axis = tensor.Quantization(), 0
    if quantization is not None and quantization.ScaleLength():
        axis = quantization.QuantizedDimension()
        scales = quantization.ScaleAsNumpy()
        zeros = quantization.ZeroPointAsNumpy() if quantization.ZeroPointLength() else np.zeros(1)
        if len(zeros) not in (1, len(scales)):
            raise FileError(f"damaged: {len(scales)} scales and {len(zeros)} zero points")
        zeros = np.broadcast_to(zeros, len(scales)).astype(np.float64)
        scales = scales.astype(np.float64)
    kind = numbers.get(tensor.Type(), f"number type {tensor.Type()}")
    return Tensor(text(tensor.Name()), shape, kind, data, scales, zeros, axis)


def _data(content: bytes, buffer: Any) -> Array | None:
    """A buffer's bytes, which newer files may store after the flatbuffer; None if it is empty."""
    if buffer.DataLength():
        data: Array = buffer.DataAsNumpy()
        return data
    start, size = (getattr(buffer, name, int)() for name in ("Offset", "Size"))
    if start <= 1:
        return None
    if start + size > len(content):
        raise FileError("damaged: a buffer lies beyond the file's end")
    return np.frombuffer(content, np.uint8, size, start)


def _custom_options(operator: Any, names: Sequence[str]) -> dict[str, int | float]:
    """Numbers and flags of these names."""
    from flatbuffers import flexbuffers

    if not names or not operator.CustomOptionsLength():
        return {}
    root = flexbuffers.GetRoot(operator.CustomOptionsAsNumpy().tobytes())
    if not root.IsMap:
        raise FileError("damaged: its settings are not a map")
    found = dict(zip((key.AsKey for key in root.AsMap.Keys), root.AsMap.Values, strict=True))
    return {name: found[name].AsFloat if found[name].IsFloat else found[name].AsInt for name in names if name in found}


def _operator(model: Any, operator: Any, tensors: int, codes: Mapping[int, str], text: Any) -> Operator:
    import tflite

    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind = codes.get(number, f"operator {number}")
    options: dict[str, int | float] = {}
    if kind == "CUSTOM" and code.CustomCode():
        custom = text(code.CustomCode())
        kind = custom if custom in _CUSTOM else f"CUSTOM {shown(custom)}"
        options = _custom_options(operator, _CUSTOM.get(custom, ()))
    if kind in _OPTIONS:
        name, settings = _OPTIONS[kind]
        table = operator.BuiltinOptions()
        read = getattr(tflite, name)()
        if table is not None:
            if operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, name):
                raise FileError(f"damaged: {kind} with the settings of another operator")
            read.Init(table.Bytes, table.Pos)
            options = {setting: getattr(read, setting)() for setting in settings}
        elif kind not in ("ADD", "SUB", "MUL", "DIV", "SOFTMAX"):
            raise FileError(f"damaged: {kind} without its settings")
    return Operator(kind, _numbers(operator, "Inputs", tensors), _numbers(operator, "Outputs", tensors), options)
