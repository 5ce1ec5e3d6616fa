"""TensorFlow Lite files, float and integer, as a list of layers in the order they run.

Read with the `tflite` schema package; nothing is executed. Integer tensors are turned into real numbers,
scale * (integer - zero point), with one scale or one per output channel. What an integer layer's output can hold is
kept as `Layer.grid`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smallcnn.errors import FileError, require
from smallcnn.ops import Padding


@dataclass(frozen=True)
class Grid:
    """The 256 values of an 8-bit tensor: scale * (code - zero) for codes 0..255."""

    scale: float
    zero: int

    @property
    def low(self) -> float:
        """The smallest value."""
        return -self.scale * self.zero

    @property
    def high(self) -> float:
        """The largest value."""
        return self.scale * (255 - self.zero)


Kind = Literal["conv", "depthwise", "dense", "add", "mean", "average"]


@dataclass(frozen=True)
class Layer:
    """One layer: what it computes on which tensors. Weights are float32, laid out as in `smallcnn.ops`.

    `inputs` and `output` are tensor numbers, with shape-only operators seen through. `padding` is "SAME" or "VALID",
    `before` zeros added by an operator of their own. `activation` is None, "relu" or "relu6".
    """

    kind: Kind
    inputs: tuple[int, ...]
    output: int
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    padding: str = "VALID"
    before: Padding = ((0, 0), (0, 0))
    activation: str | None = None
    grid: Grid | None = None


@dataclass(frozen=True)
class TFLite:
    """A file's layers and ends; `grid` says what number a byte 0..255 of the image stands for (None: float input)."""

    layers: tuple[Layer, ...]
    input: int
    input_shape: tuple[int, int, int]
    output: int
    grid: Grid | None


def read_tflite(path: Path) -> TFLite:
    """Raises FileError if the file is missing, damaged, or has operators this does not know; it names the operator."""
    require("reading a .tflite file", "import", "tflite")
    try:
        return _File(path, path.read_bytes()).read()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: damaged or not a TensorFlow Lite file") from error


class _File:
    """The parsed file; `read` walks its operators."""

    def __init__(self, path: Path, content: bytes) -> None:
        import tflite

        if content[4:8] != b"TFL3":
            raise FileError(f"{path}: not a TensorFlow Lite file")
        self.path, self.schema = path, tflite
        self.model = tflite.Model.GetRootAsModel(content, 0)
        if self.model.SubgraphsLength() != 1:
            raise FileError(f"{path}: {self.model.SubgraphsLength()} subgraphs; one is expected")
        self.graph = self.model.Subgraphs(0)
        codes = vars(tflite.BuiltinOperator)
        self.names = {code: name for name, code in codes.items() if not name.startswith("_")}
        self.same: dict[int, int] = {}  # tensors that are another one in a different shape or number type
        self.padded: dict[int, Padding] = {}
        self.probabilities: set[int] = set()  # what a softmax made

    def read(self) -> TFLite:
        """The layers, and the ends."""
        if (self.graph.InputsLength(), self.graph.OutputsLength()) != (1, 1):
            raise FileError(f"{self.path}: a classifier has one input and one output")
        number = self.graph.Inputs(0)
        batch, height, width, channels = (int(size) for size in self.graph.Tensors(number).ShapeAsNumpy())
        if batch != 1 or min(height, width, channels) < 1:
            raise FileError(f"{self.path}: its input is {(batch, height, width, channels)}, not one picture")
        layers = tuple(self._layers())
        if not layers:
            raise FileError(f"{self.path}: holds no layers")
        output = self._seen_through(self.graph.Outputs(0))
        return TFLite(layers, self._seen_through(number), (height, width, channels), output, self._grid(number))

    def _layers(self) -> Iterator[Layer]:
        for index in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(index)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            name = self.names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
            if name == "CUSTOM" and code.CustomCode():
                name = f"CUSTOM {code.CustomCode().decode(errors='replace')!r}"
            first, output = operator.Inputs(0), operator.Outputs(0)
            if first in self.probabilities and name not in ("RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE"):
                raise FileError(f"{self.path}: operator {index}, {name}, comes after a softmax")
            match name:
                case "RESHAPE" | "SQUEEZE":
                    before, after = self._sides(first), self._sides(output)
                    if after not in (before, [prod(before)]):  # sides of 1 may come and go, and a map may become flat
                        raise FileError(f"{self.path}: operator {index} turns a map into another shape")
                    self._alias(output, first)
                case "SOFTMAX":
                    self._alias(output, first)
                    self.probabilities.add(output)
                case "QUANTIZE" | "DEQUANTIZE":
                    grids = [grid for grid in map(self._grid, (first, output)) if grid]
                    if len(set(grids)) > 1:
                        raise FileError(f"{self.path}: operator {index} changes the values an 8-bit tensor can hold")
                    self._alias(output, first)
                case "PAD":
                    margins = [tuple(map(int, row)) for row in self._integers(operator.Inputs(1)).reshape(-1, 2)]
                    if len(margins) != 4 or margins[0] != (0, 0) or margins[3] != (0, 0):
                        raise FileError(f"{self.path}: operator {index} pads batch or channels")
                    self._alias(output, first)
                    self.padded[output] = (margins[1], margins[2])  # type: ignore[assignment]
                case "CONV_2D" | "DEPTHWISE_CONV_2D" | "FULLY_CONNECTED":
                    yield self._weighted(name, operator)
                case "ADD":
                    yield self._layer("add", operator, self.schema.AddOptions)
                case "MEAN":
                    if sorted(self._integers(operator.Inputs(1)).ravel().tolist()) != [1, 2]:
                        raise FileError(f"{self.path}: operator {index} is a mean over other axes than a map's plane")
                    yield self._layer("mean", operator, None)
                case "AVERAGE_POOL_2D":
                    options = self._options(operator, self.schema.Pool2DOptions)
                    yield self._layer(
                        "average", operator, self.schema.Pool2DOptions,
                        window=(options.FilterHeight(), options.FilterWidth()),
                    )  # fmt: skip
                case _:
                    raise FileError(f"{self.path}: operator {index} is {name}, which no network here is imported from")

    def _alias(self, output: int, source: int) -> None:
        """Notes that a tensor is another one; what was padded stays padded."""
        self.same[output] = self._seen_through(source)
        if self.same[output] == output:
            raise FileError(f"{self.path}: an operator writes what it reads")
        if source in self.padded:
            self.padded[output] = self.padded[source]
        if source in self.probabilities:
            self.probabilities.add(output)

    def _sides(self, number: int) -> list[int]:
        """A tensor's shape without sides of 1."""
        return [int(side) for side in self.graph.Tensors(number).ShapeAsNumpy() if side != 1]

    def _weighted(self, name: str, operator: Any) -> Layer:
        weight = self._array(operator.Inputs(1))
        bias = self._array(operator.Inputs(2)) if operator.InputsLength() > 2 and operator.Inputs(2) >= 0 else None
        if name == "FULLY_CONNECTED":
            layer = self._layer("dense", operator, self.schema.FullyConnectedOptions, weight=weight, bias=bias)
        elif name == "CONV_2D":
            options = self._options(operator, self.schema.Conv2DOptions)
            layer = self._layer(
                "conv", operator, self.schema.Conv2DOptions, weight=weight.transpose(0, 3, 1, 2), bias=bias,
                **self._window(options),
            )  # fmt: skip
        else:
            options = self._options(operator, self.schema.DepthwiseConv2DOptions)
            layer = self._layer(
                "depthwise", operator, self.schema.DepthwiseConv2DOptions, weight=weight.transpose(3, 0, 1, 2),
                bias=bias, **self._window(options),
            )  # fmt: skip
        return layer

    def _window(self, options: Any) -> dict[str, Any]:
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            raise FileError(f"{self.path}: dilated convolutions are not known here")
        same = options.Padding() == self.schema.Padding.SAME
        return {"stride": (options.StrideH(), options.StrideW()), "padding": "SAME" if same else "VALID"}

    def _layer(self, kind: Kind, operator: Any, options: Any, **more: Any) -> Layer:
        count = 2 if kind == "add" else 1
        numbers = [operator.Inputs(i) for i in range(count)]
        if any(number in self.padded for number in numbers) and more.get("padding") != "VALID":
            raise FileError(f"{self.path}: zeros around a map are known only before a convolution that adds none")
        return Layer(
            kind,
            tuple(self._seen_through(number) for number in numbers),
            operator.Outputs(0),
            before=self.padded.get(numbers[0], ((0, 0), (0, 0))),
            activation=self._activation(operator, options),
            grid=self._grid(operator.Outputs(0)),
            **more,
        )

    def _activation(self, operator: Any, options: Any) -> str | None:
        if options is None:
            return None
        kinds = self.schema.ActivationFunctionType
        known = {kinds.NONE: None, kinds.RELU: "relu", kinds.RELU6: "relu6"}
        code = self._options(operator, options).FusedActivationFunction()
        if code not in known:
            raise FileError(f"{self.path}: fused activation {code} is not known here")
        return known[code]

    def _options(self, operator: Any, kind: Any) -> Any:
        options = kind()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _seen_through(self, number: int) -> int:
        return self.same.get(number, number)

    def _quantization(self, tensor: Any) -> tuple[np.ndarray, np.ndarray]:
        quantization = tensor.Quantization()
        if quantization is None or not quantization.ScaleLength():
            raise FileError(f"{self.path}: the integer tensor {tensor.Name().decode()!r} has no scale")
        return quantization.ScaleAsNumpy().astype(np.float64), quantization.ZeroPointAsNumpy().astype(np.float64)

    def _grid(self, number: int) -> Grid | None:
        """What an 8-bit tensor can hold; None for a float one. int8 codes are counted from 0."""
        tensor = self.graph.Tensors(number)
        kinds = self.schema.TensorType
        if tensor.Type() in (kinds.FLOAT32, kinds.FLOAT16):
            return None
        if tensor.Type() not in (kinds.UINT8, kinds.INT8):
            raise FileError(f"{self.path}: {tensor.Name().decode()!r} is neither float nor 8-bit")
        scales, zeros = self._quantization(tensor)
        scale, zero = float(scales[0]), int(zeros[0]) + (128 if tensor.Type() == kinds.INT8 else 0)
        if not (isfinite(scale) and scale > 0 and 0 <= zero <= 255):
            raise FileError(f"{self.path}: {tensor.Name().decode()!r} has scale {scale} and zero point {zero}")
        return Grid(scale, zero)

    def _integers(self, number: int) -> np.ndarray:
        """A constant that counts something: axes, margins."""
        return self._stored(self.graph.Tensors(number)).astype(np.int64)

    def _array(self, number: int) -> np.ndarray:
        """Constant weights as real numbers, in the file's layout."""
        tensor = self.graph.Tensors(self._seen_through(number))
        array = self._stored(tensor)
        if array.dtype.kind == "f":
            return array.astype(np.float32)
        scales, zeros = self._quantization(tensor)
        if len(scales) > 1:  # one per slice along one axis
            shape = [1] * array.ndim
            shape[tensor.Quantization().QuantizedDimension()] = len(scales)
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        return ((array.astype(np.float64) - zeros) * scales).astype(np.float32)

    def _stored(self, tensor: Any) -> np.ndarray:
        """A constant as it is stored."""
        kinds = self.schema.TensorType
        types = {
            kinds.FLOAT32: np.float32, kinds.FLOAT16: np.float16, kinds.INT64: np.int64,
            kinds.UINT8: np.uint8, kinds.INT8: np.int8, kinds.INT32: np.int32,
        }  # fmt: skip
        if tensor.Type() not in types:
            raise FileError(f"{self.path}: tensor {tensor.Name().decode()!r} has a number type that is not known here")
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise FileError(f"{self.path}: tensor {tensor.Name().decode()!r} should be a constant and is not")
        return data.view(types[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
