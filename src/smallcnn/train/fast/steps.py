"""The steps of a network: each computes one value from earlier ones, and gives their gradients back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from smallcnn.train.fast import native
from smallcnn.train.fast.memory import Memory
from smallcnn.train.fast.native import at, library
from smallcnn.train.fast.values import Act, Norm, Value


class Run:
    """One batch on its way forward and back."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.parts = torch.get_num_threads()
        self.values: dict[str, Value] = {}
        self.gradients: dict[nn.Parameter, Tensor] = {}
        self.tapes: dict[str, tuple[list[Tensor], list[nn.Parameter], Tensor]] = {}

    def read(self, name: str) -> Value:
        """The value of a node, for a step whose own will be wanted if this one's is."""
        value = self.values[name]
        value.readers += 1
        return value

    def written(self, value: Value) -> Tensor:
        """The value itself as a tensor."""
        if value.is_plain:
            return value.raw
        if value.written is None:
            value.written = self.memory.empty(value.raw.shape)
            columns = value.channels
            library().fast_read(self.parts, value.rows, columns, value.source, columns, at(value.written), columns)
        return value.written

    def contribute(self, value: Value, gradient: Tensor, column: int = 0) -> None:
        """Adds a gradient of the value, a tensor of our own or PyTorch's; of its channels those from `column` on."""
        if not value.wanted:
            return
        gradient = _settled(gradient)
        whole = gradient.shape[1] == value.channels
        if value.grad is None and whole and (value.is_plain or value.readers > 1):
            value.readers -= 1
            value.grad = gradient
            return
        finish, out = value.finish(self.parts), self.memory.empty(value.raw.shape)
        start, ld = gradient.data_ptr() + 4 * column, gradient.shape[1]
        library().fast_finish(self.parts, value.rows, value.channels, start, ld, finish, at(out))
        value.grad = out


@dataclass(eq=False)
class Step(ABC):
    """Reads `inputs`, computes the node `name`."""

    name: str
    inputs: tuple[str, ...]

    def forward(self, run: Run) -> None:
        """Puts the value into run.values."""
        run.values[self.name] = self._compute(run, *map(run.read, self.inputs))

    def backward(self, run: Run) -> None:
        """Once the value has its gradient, contributes to those of the inputs; the value is not kept any longer."""
        value = run.values.pop(self.name)
        if value.wanted:
            self._give_back(run, value, *(run.values[name] for name in self.inputs))

    @abstractmethod
    def _compute(self, run: Run, *sources: Value) -> Value: ...

    @abstractmethod
    def _give_back(self, run: Run, value: Value, *sources: Value) -> None: ...


@dataclass(eq=False)
class Convolution(Step):
    """A convolution, batch norm, activation; the last two may be missing."""

    layer: nn.Conv2d
    norm: nn.BatchNorm2d | None
    act: Act
    padding: tuple[int, int]
    """top, left"""
    end_padding: tuple[int, int]
    """bottom, right"""

    def _geometry(self, x: Tensor) -> tuple[int, ...]:
        (kh, kw), (sy, sx), (top, left) = self.layer.kernel_size, self.layer.stride, self.padding
        height, width = x.shape[2:]
        out = ((height + top + self.end_padding[0] - kh) // sy + 1, (width + left + self.end_padding[1] - kw) // sx + 1)
        return height, width, *out, kh, kw, sy, sx, top, left

    def _shape(self, x: Tensor) -> Any:
        height, width, out_height, out_width, *window = self._geometry(x)
        layer = self.layer
        if self._is_depthwise:
            return native.Depthwise(len(x), height, width, x.shape[1], out_height, out_width, *window)
        return native.Conv(
            len(x), height, width, x.shape[1], out_height, out_width, layer.out_channels, layer.groups, *window
        )

    @property
    def _is_depthwise(self) -> bool:
        return self.layer.groups == self.layer.in_channels == self.layer.out_channels > 1

    def _weights(self) -> Tensor:
        return self.layer.weight.detach().permute(0, 2, 3, 1).contiguous()

    def _compute(self, run: Run, *sources: Value) -> Value:
        (x,) = sources
        shape = self._shape(x.raw)
        raw = run.memory.empty((len(x.raw), self.layer.out_channels, shape.out_height, shape.out_width))
        batch = self.norm if self.norm is not None and self.norm.training else None
        sums = torch.empty(run.parts, 2, raw.shape[1], dtype=torch.float64) if batch else None
        kernel = library().fast_depthwise if self._is_depthwise else library().fast_conv
        pivot = batch.running_mean if batch else None
        weights = self._weights()
        kernel(run.parts, shape, x.source, at(weights), at(pivot), at(raw), at(sums))
        trained = any(p.requires_grad for m in (self.layer, self.norm) if m is not None for p in m.parameters())
        value = Value(raw, x.wanted or trained, self.act)
        if self.norm is not None:
            normalise(value, self.norm, sums)
        elif self.layer.bias is not None:
            value.bias = cast(nn.Parameter, self.layer.bias)
            value.scale, value.shift = torch.ones(raw.shape[1]), value.bias.detach()
        return value

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        (x,) = sources
        gradient = value.gradient(run.gradients)
        weight = self.layer.weight
        weights, shape = self._weights(), self._shape(x.raw)
        to_source = run.memory.empty(x.raw.shape) if x.wanted or self._is_depthwise else None
        to_weights = torch.empty_like(weights) if weight.requires_grad or self._is_depthwise else None
        finish = x.finish(run.parts) if x.wanted else native.Finish()
        kernel = library().fast_depthwise_backward if self._is_depthwise else library().fast_conv_backward
        if to_source is not None or to_weights is not None:
            kernel(run.parts, shape, x.source, gradient, finish, at(weights), at(to_source), at(to_weights))
        if weight.requires_grad and to_weights is not None:
            run.gradients[cast(nn.Parameter, weight)] = to_weights.permute(0, 3, 1, 2)
        if x.wanted:
            x.grad = to_source


def normalise(value: Value, layer: nn.BatchNorm2d, sums: Tensor | None) -> None:
    """Makes batch norm a part of a value; `sums` are its statistics, None if the running ones count."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    if sums is None:
        inverse = torch.rsqrt(layer.running_var + layer.eps)
        scale = layer.weight.detach() * inverse
        mean = layer.running_mean.clone()
        shift = layer.bias.detach() - mean * scale
    else:
        mean, inverse, scale, shift = torch.empty(4, value.channels).unbind()
        assert layer.momentum is not None
        library().fast_norm(
            *(
                len(sums),
                value.channels,
                value.rows,
                at(sums),
                at(layer.running_mean),
                at(layer.weight),
                at(layer.bias),
            ),
            *(at(layer.running_mean), at(layer.running_var), layer.momentum, layer.eps),
            *(at(mean), at(inverse), at(scale), at(shift)),
        )
    value.norm = Norm(layer, sums is None, mean, inverse)
    value.scale, value.shift = scale, shift


@dataclass(eq=False)
class Normalisation(Step):
    """Batch norm and activation of a value that other nodes read too, or that no convolution wrote."""

    norm: nn.BatchNorm2d
    act: Act

    def _compute(self, run: Run, *sources: Value) -> Value:
        (x,) = sources
        raw = run.written(x)
        sums = None
        if self.norm.training:
            sums = torch.empty(run.parts, 2, x.channels, dtype=torch.float64)
            library().fast_statistics(run.parts, x.rows, x.channels, at(raw), at(self.norm.running_mean), at(sums))
        value = Value(raw, x.wanted or any(p.requires_grad for p in self.norm.parameters()), self.act)
        normalise(value, self.norm, sums)
        return value

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        (x,) = sources
        gradient = value.gradient(run.gradients)
        if x.wanted:
            out = run.memory.empty(x.raw.shape)
            library().fast_gradient(run.parts, x.rows, x.channels, gradient, at(out))
            run.contribute(x, out)


@dataclass(eq=False)
class Activation(Step):
    """An activation of a value that other nodes read too, or that no convolution wrote."""

    act: Act

    def _compute(self, run: Run, *sources: Value) -> Value:
        (x,) = sources
        return Value(run.written(x), x.wanted, self.act)

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        (x,) = sources
        run.contribute(x, value.gradient_of_raw)


@dataclass(eq=False)
class Add(Step):
    """A sum of two values, and an activation."""

    act: Act

    def _compute(self, run: Run, *sources: Value) -> Value:
        a, b = sources
        raw = run.memory.empty(a.raw.shape)
        library().fast_add(run.parts, a.rows, a.channels, a.source, b.source, at(raw))
        return Value(raw, a.wanted or b.wanted, self.act)

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        for source in sources:
            run.contribute(source, value.gradient_of_raw)


@dataclass(eq=False)
class Concat(Step):
    """Values side by side."""

    def _compute(self, run: Run, *sources: Value) -> Value:
        images, _, height, width = sources[0].raw.shape
        channels = sum(source.channels for source in sources)
        raw = run.memory.empty((images, channels, height, width))
        column = 0
        for source in sources:
            own = source.channels
            library().fast_read(run.parts, source.rows, own, source.source, own, raw.data_ptr() + 4 * column, channels)
            column += own
        return Value(raw, any(source.wanted for source in sources))

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        column = 0
        for source in sources:
            run.contribute(source, value.gradient_of_raw, column)
            column += source.channels


@dataclass(eq=False)
class Shuffle(Step):
    """Channel shuffle."""

    groups: int

    def _compute(self, run: Run, *sources: Value) -> Value:
        (x,) = sources
        raw = run.memory.empty(x.raw.shape)
        library().fast_shuffle(run.parts, x.rows, x.channels, self.groups, x.source, at(raw))
        return Value(raw, x.wanted)

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        (x,) = sources
        finish, out = x.finish(run.parts), run.memory.empty(x.raw.shape)
        library().fast_shuffle_backward(run.parts, x.rows, x.channels, self.groups, at(value.grad), finish, at(out))
        x.grad = out


@dataclass(eq=False)
class Pool(Step):
    """Largest or mean of a window, or of the whole plane if `kernel` is None."""

    kernel: tuple[int, int] | None
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    average: bool
    count_padding: bool

    def _shape(self, x: Tensor) -> native.Pool:
        images, channels, height, width = x.shape
        kh, kw = self.kernel or (height, width)
        (top, bottom), (left, right) = self.padding
        out = ((height + top + bottom - kh) // self.stride[0] + 1, (width + left + right - kw) // self.stride[1] + 1)
        return native.Pool(
            *(images, height, width, channels, *out, kh, kw, *self.stride, top, left, self.average, self.count_padding)
        )

    def _compute(self, run: Run, *sources: Value) -> Value:
        (x,) = sources
        shape = self._shape(x.raw)
        plane = (shape.out_height, shape.out_width) if self.kernel else ()
        raw = run.memory.empty((len(x.raw), x.channels, *plane))
        library().fast_pool(run.parts, shape, x.source, at(raw))
        return Value(raw, x.wanted)

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        (x,) = sources
        kind = torch.channels_last if self.kernel else torch.contiguous_format
        given = value.gradient_of_raw.contiguous(memory_format=kind)
        finish, out = x.finish(run.parts), run.memory.empty(x.raw.shape)
        library().fast_pool_backward(run.parts, self._shape(x.raw), x.source, at(given), finish, at(out))
        x.grad = out


@dataclass(eq=False)
class Layer(Step):
    """Any other node: the module's own layer, differentiated by PyTorch."""

    layer: nn.Module

    def _compute(self, run: Run, *sources: Value) -> Value:
        given = [run.written(source).detach().requires_grad_(source.wanted) for source in sources]
        trained = [p for p in self.layer.parameters() if p.requires_grad]
        with torch.enable_grad():
            passed = [tensor.clone() for tensor in given] if getattr(self.layer, "inplace", False) else given
            result = self.layer(*passed)
        value = Value(_settled(result.detach()), any(source.wanted for source in sources) or bool(trained))
        run.tapes[self.name] = (given, trained, result)
        return value

    def _give_back(self, run: Run, value: Value, *sources: Value) -> None:
        given, trained, result = run.tapes.pop(self.name)
        wanted = [tensor for tensor in given if tensor.requires_grad]
        results = torch.autograd.grad(result, [*wanted, *trained], value.grad)
        for parameter, gradient in zip(trained, results[len(wanted) :], strict=True):
            run.gradients[parameter] = gradient
        for source, gradient in zip([source for source in sources if source.wanted], results, strict=False):
            run.contribute(source, gradient)


def _settled(tensor: Tensor) -> Tensor:
    """As kernels expect a tensor in memory."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()
