"""Reads TensorFlow Lite files, float and integer, as a list of layers in execution order, to match to a network.

Integer tensors become real numbers, scale * (integer - zero point), with one scale or one per output channel. The range
of an integer layer's output is kept as `Layer.grid`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.ops import Padding
from smallcnn.tflite.file import File, Grid, Operator, check_image, parse, read_bytes

Kind = Literal["conv", "depthwise", "dense", "add", "mean", "average"]

_ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}


@dataclass(frozen=True)
class Layer:
    """One layer: its operation and its tensors. Weights are float32, laid out as in `ir.ops`.

    `inputs` and `output` are tensor numbers, skipping shape-only operators. `padding` is "SAME" or "VALID",
    `before` the zeros added by a separate operator. `activation` is None, "relu" or "relu6".
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
    """A file's layers, input and output; `grid` maps image bytes 0..255 to numbers (None: float input)."""

    layers: tuple[Layer, ...]
    input: int
    input_shape: tuple[int, int, int]
    output: int
    grid: Grid | None


def read_layers(path: Path) -> TFLite:
    """Raises FileError if the file is missing, damaged, or has operators that no registered network has."""
    try:
        return _Walk(parse(read_bytes(path))).read()
    except FileError as error:
        raise FileError(f"{path}: {error}") from error


class _Walk:
    """Walks the operators of a file, skipping shape-only ones."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.same: dict[int, int] = {}  # tensors that alias another in a different shape or number type
        self.padded: dict[int, Padding] = {}
        self.probabilities: set[int] = set()  # results of a softmax

    def read(self) -> TFLite:
        """The layers, input and output."""
        file = self.file
        if (len(file.inputs), len(file.outputs)) != (1, 1) or min(*file.inputs, *file.outputs) < 0:
            raise FileError("a classifier has one input and one output")
        (number,) = file.inputs
        shape = file.tensors[number].shape
        if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
            raise FileError(f"its input is {shape}, not one image")
        check_image(file.tensors[number])
        layers = tuple(self._layers())
        if not layers:
            raise FileError("holds no layers")
        output, grid = self._seen_through(file.outputs[0]), file.tensors[number].grid
        return TFLite(layers, self._seen_through(number), (shape[1], shape[2], shape[3]), output, grid)

    def _layers(self) -> Iterator[Layer]:
        for index, operator in enumerate(self.file.operators):
            try:
                yield from self._layer_of(operator)
            except FileError as error:
                raise FileError(f"operator {index}, {operator.kind}: {error}") from error

    def _layer_of(self, operator: Operator) -> Iterator[Layer]:
        if not operator.inputs or not operator.outputs or min(operator.inputs[0], *operator.outputs) < 0:
            raise FileError("damaged: lacks an input or an output")
        first, output = operator.inputs[0], operator.outputs[0]
        if first in self.probabilities and operator.kind not in ("RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE"):
            raise FileError("comes after a softmax")
        match operator.kind:
            case "RESHAPE" | "SQUEEZE":
                before, after = self._sides(first), self._sides(output)
                if after not in (before, [prod(before)]):  # sides of 1 may come and go, and a map may be flattened
                    raise FileError("reshapes a map")
                self._alias(output, first)
            case "SOFTMAX":
                self._alias(output, first)
                self.probabilities.add(output)
            case "QUANTIZE" | "DEQUANTIZE":
                grids = [grid for number in (first, output) if (grid := self.file.tensors[number].grid)]
                if len(set(grids)) > 1:
                    raise FileError("changes the values an 8-bit tensor can hold")
                self._alias(output, first)
            case "PAD":
                margins = self._integers(operator, 1).reshape(-1, 2).tolist()
                if len(margins) != 4 or any(margins[0]) or any(margins[3]):
                    raise FileError("pads batch or channels")
                self._alias(output, first)
                self.padded[output] = (tuple(margins[1]), tuple(margins[2]))
            case "CONV_2D" | "DEPTHWISE_CONV_2D" | "FULLY_CONNECTED":
                yield self._weighted(operator)
            case "ADD":
                yield self._layer("add", operator)
            case "MEAN":
                if sorted(self._integers(operator, 1).ravel().tolist()) != [1, 2]:
                    raise FileError("is a mean over axes other than height and width")
                yield self._layer("mean", operator)
            case "AVERAGE_POOL_2D":
                window = (int(operator.options["FilterHeight"]), int(operator.options["FilterWidth"]))
                yield self._layer("average", operator, window=window)
            case _:
                raise FileError("no registered network has this operator; without --as the file is imported as it is")

    def _alias(self, output: int, source: int) -> None:
        """Notes that a tensor aliases another; padding is inherited."""
        self.same[output] = self._seen_through(source)
        if self.same[output] == output:
            raise FileError("writes what it reads")
        if source in self.padded:
            self.padded[output] = self.padded[source]
        if source in self.probabilities:
            self.probabilities.add(output)

    def _sides(self, number: int) -> list[int]:
        """A tensor's shape without sides of 1."""
        return [side for side in self.file.tensors[number].shape if side != 1]

    def _weighted(self, operator: Operator) -> Layer:
        weight = self._array(operator, 1)
        has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
        bias = self._array(operator, 2).reshape(-1) if has_bias else None
        if operator.kind == "FULLY_CONNECTED":
            return self._layer("dense", operator, weight=weight, bias=bias)
        if weight.ndim != 4:
            raise FileError(f"has a weight of {weight.shape}, not four axes")
        if operator.kind == "CONV_2D":
            kind: Kind = "conv"
            weight = weight.transpose(0, 3, 1, 2)
        else:
            kind, weight = "depthwise", weight.transpose(3, 0, 1, 2)
        return self._layer(kind, operator, weight=weight, bias=bias, **_window(operator))

    def _layer(self, kind: Kind, operator: Operator, **more: Any) -> Layer:
        numbers = operator.inputs[: 2 if kind == "add" else 1]
        if len(numbers) < (2 if kind == "add" else 1) or min(numbers) < 0:
            raise FileError("damaged: lacks an input")
        if any(number in self.padded for number in numbers) and more.get("padding") != "VALID":
            raise FileError("padding is supported only before a convolution that adds none itself")
        code = operator.options.get("FusedActivationFunction", 0)
        if code not in _ACTIVATIONS:
            raise FileError(f"fused activation {code} is not supported")
        return Layer(
            kind,
            tuple(self._seen_through(number) for number in numbers),
            operator.outputs[0],
            before=self.padded.get(numbers[0], ((0, 0), (0, 0))),
            activation=_ACTIVATIONS[int(code)],
            grid=self.file.tensors[operator.outputs[0]].grid,
            **more,
        )

    def _seen_through(self, number: int) -> int:
        return self.same.get(number, number)

    def _integers(self, operator: Operator, index: int) -> np.ndarray:
        """A constant of whole numbers: axes, margins."""
        if index >= len(operator.inputs) or operator.inputs[index] < 0:
            raise FileError(f"lacks input {index + 1}")
        array = self.file.tensors[operator.inputs[index]].stored()
        if array.dtype.kind not in "iu" or array.size > 16:
            raise FileError(f"needs whole numbers, not {array.size} of {array.dtype}")
        return array.astype(np.int64)

    def _array(self, operator: Operator, index: int) -> np.ndarray:
        """Constant weights as real numbers, in the file's layout."""
        if index >= len(operator.inputs) or operator.inputs[index] < 0:
            raise FileError(f"lacks input {index + 1}")
        return self.file.tensors[self._seen_through(operator.inputs[index])].real().astype(np.float32)


def _window(operator: Operator) -> dict[str, Any]:
    options = operator.options
    if (options["DilationHFactor"], options["DilationWFactor"]) != (1, 1):
        raise FileError("dilated convolutions are not supported")
    stride = (int(options["StrideH"]), int(options["StrideW"]))
    if min(stride) < 1:
        raise FileError(f"has strides {stride}")
    return {"stride": stride, "padding": "SAME" if options["Padding"] == 0 else "VALID"}
