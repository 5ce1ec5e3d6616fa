"""The steps of a network: each computes one value from earlier ones, and backpropagates to them."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from smallcnn.train.exchange import sum_over_processes
from smallcnn.train.fast import native
from smallcnn.train.fast.native import at
from smallcnn.train.fast.program import Program
from smallcnn.train.fast.values import Act, BatchNorm, Norm, Value
from smallcnn.train.sync_norm import SynchronisedNorm


@dataclass(eq=False)
class Step(ABC):
    """Computes the node `name` from `inputs`."""

    name: str
    inputs: tuple[str, ...]

    def forward(self, program: Program) -> None:
        """Records the forward calls and stores the value in program.values."""
        program.values[self.name] = self._compute(program, *map(program.read, self.inputs))

    def backward(self, program: Program) -> None:
        """Records the calls that contribute to the inputs' gradients, and drops the value."""
        value = program.values.pop(self.name)
        if value.wanted:
            self._give_back(program, value, *(program.values[name] for name in self.inputs))

    @abstractmethod
    def _compute(self, program: Program, *sources: Value) -> Value: ...

    @abstractmethod
    def _give_back(self, program: Program, value: Value, *sources: Value) -> None: ...


@dataclass(eq=False)
class Convolution(Step):
    """A convolution with optional batch norm and activation."""

    layer: nn.Conv2d
    norm: BatchNorm | None
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

    def _weights(self, program: Program) -> Tensor:
        """(out, kernel height, kernel width, channels / groups)."""
        weights = self.layer.weight.detach().permute(0, 2, 3, 1)
        if weights.is_contiguous():
            return weights
        copied = program.memory.keep(torch.empty(weights.shape))
        program.call(copied.copy_, weights)
        return copied

    def _compute(self, program: Program, *sources: Value) -> Value:
        (x,) = sources
        shape = self._shape(x.raw)
        raw = program.memory.empty((len(x.raw), self.layer.out_channels, shape.out_height, shape.out_width))
        batch = self.norm if self.norm is not None and self.norm.training else None
        sums = program.sums(raw.shape[1]) if batch else None
        kernel, weights = "fast_depthwise" if self._is_depthwise else "fast_conv", self._weights(program)
        program.call(kernel, program.parts, shape, x.source, at(weights), at(raw), at(sums))
        trained = any(p.requires_grad for m in (self.layer, self.norm) if m is not None for p in m.parameters())
        value = Value(raw, x.wanted or trained, self.act)
        if self.norm is not None:
            normalise(program, value, self.norm, sums)
        elif self.layer.bias is not None:
            value.bias = cast(nn.Parameter, self.layer.bias)
            value.scale, value.shift = program.memory.keep(torch.ones(raw.shape[1])), value.bias.detach()
        return value

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        (x,) = sources
        gradient, weight = value.gradient(program), cast(nn.Parameter, self.layer.weight)
        weights, depthwise = self._weights(program), self._is_depthwise
        to_source = program.memory.empty(x.raw.shape) if x.wanted or depthwise else None
        to_weights = None
        if weight.requires_grad or depthwise:
            to_weights = program.memory.keep(torch.empty(weights.shape))
        if to_source is not None or to_weights is not None:
            program.call(
                *("fast_depthwise_backward" if depthwise else "fast_conv_backward", program.parts),
                *(self._shape(x.raw), x.source, gradient, x.finish(program) if x.wanted else native.Finish()),
                *(at(weights), at(to_source), at(to_weights)),
            )
        if weight.requires_grad and to_weights is not None:
            program.gradients[weight] = to_weights.permute(0, 3, 1, 2)
        if x.wanted:
            x.grad = to_source


def normalise(program: Program, value: Value, layer: BatchNorm, sums: Tensor | None) -> None:
    """Adds batch norm to a value; `sums` are its batch statistics, None to use the running ones."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, inverse, scale, shift = program.vectors(4, value.channels)
    if sums is None:
        program.call(_freeze, layer, mean, inverse, scale, shift)
    elif value.rows == 1 and not isinstance(layer, SynchronisedNorm):
        raise ValueError("batch norm needs more than one value per channel while training: a larger batch or image")
    else:
        totals = program.totals(value, sums)
        if isinstance(layer, SynchronisedNorm):
            program.call(sum_over_processes, totals)
        program.call(
            *("fast_norm", value.channels, at(totals), at(layer.weight), at(layer.bias)),
            *(at(layer.running_mean), at(layer.running_var), layer.momentum, layer.eps),
            *map(at, (mean, inverse, scale, shift)),
        )
    value.norm = Norm(layer, sums is None, mean, inverse)
    value.scale, value.shift = scale, shift


def _freeze(layer: BatchNorm, mean: Tensor, inverse: Tensor, scale: Tensor, shift: Tensor) -> None:
    """Batch norm with running statistics, as scale and shift."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean.copy_(layer.running_mean)
    inverse.copy_(torch.rsqrt(layer.running_var + layer.eps))
    scale.copy_(layer.weight.detach() * inverse)
    shift.copy_(layer.bias.detach() - mean * scale)


@dataclass(eq=False)
class Normalisation(Step):
    """Batch norm and activation of a value that has other readers, or that no convolution wrote."""

    norm: BatchNorm
    act: Act

    def _compute(self, program: Program, *sources: Value) -> Value:
        (x,) = sources
        raw = program.written(x)
        sums = None
        if self.norm.training:
            sums = program.sums(x.channels)
            program.call("fast_statistics", program.parts, x.rows, x.channels, at(raw), at(sums))
        value = Value(raw, x.wanted or any(p.requires_grad for p in self.norm.parameters()), self.act)
        normalise(program, value, self.norm, sums)
        return value

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        (x,) = sources
        gradient = value.gradient(program)
        if x.wanted:
            out = program.memory.empty(x.raw.shape)
            program.call("fast_gradient", program.parts, x.rows, x.channels, gradient, at(out))
            program.contribute(x, out)


@dataclass(eq=False)
class Activation(Step):
    """Activation of a value that has other readers, or that no convolution wrote."""

    act: Act

    def _compute(self, program: Program, *sources: Value) -> Value:
        (x,) = sources
        return Value(program.written(x), x.wanted, self.act)

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        (x,) = sources
        program.contribute(x, value.gradient_of_raw)


@dataclass(eq=False)
class Add(Step):
    """A sum of two values, and an activation."""

    act: Act

    def _compute(self, program: Program, *sources: Value) -> Value:
        a, b = sources
        raw = program.memory.empty(a.raw.shape)
        program.call("fast_add", program.parts, a.rows, a.channels, a.source, b.source, at(raw))
        return Value(raw, a.wanted or b.wanted, self.act)

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        for source in sources:
            program.contribute(source, value.gradient_of_raw)


@dataclass(eq=False)
class Concat(Step):
    """Concatenation along channels."""

    def _compute(self, program: Program, *sources: Value) -> Value:
        images, _, height, width = sources[0].raw.shape
        channels = sum(source.channels for source in sources)
        raw = program.memory.empty((images, channels, height, width))
        column = 0
        for source in sources:
            own = source.channels
            program.call(
                "fast_read", program.parts, source.rows, own, source.source, own, raw.data_ptr() + 4 * column, channels
            )
            column += own
        return Value(raw, any(source.wanted for source in sources))

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        column = 0
        for source in sources:
            program.contribute(source, value.gradient_of_raw, column)
            column += source.channels


@dataclass(eq=False)
class Shuffle(Step):
    """Channel shuffle."""

    groups: int

    def _compute(self, program: Program, *sources: Value) -> Value:
        (x,) = sources
        raw = program.memory.empty(x.raw.shape)
        program.call("fast_shuffle", program.parts, x.rows, x.channels, self.groups, x.source, at(raw))
        return Value(raw, x.wanted)

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        (x,) = sources
        finish, out = x.finish(program), program.memory.empty(x.raw.shape)
        program.call(
            "fast_shuffle_backward", program.parts, x.rows, x.channels, self.groups, at(value.grad), finish, at(out)
        )
        x.grad = out


@dataclass(eq=False)
class Pool(Step):
    """Maximum or mean over a window, or over the whole plane if `kernel` is None."""

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

    def _compute(self, program: Program, *sources: Value) -> Value:
        (x,) = sources
        shape = self._shape(x.raw)
        plane = (shape.out_height, shape.out_width) if self.kernel else ()
        raw = program.memory.empty((len(x.raw), x.channels, *plane))
        program.call("fast_pool", program.parts, shape, x.source, at(raw))
        return Value(raw, x.wanted)

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        (x,) = sources
        finish, out = x.finish(program), program.memory.empty(x.raw.shape)
        program.call("fast_pool_backward", program.parts, self._shape(x.raw), x.source, at(value.grad), finish, at(out))
        x.grad = out


@dataclass(eq=False)
class Layer(Step):
    """Any other node: the module's own layer, differentiated by PyTorch."""

    layer: nn.Module

    def _compute(self, program: Program, *sources: Value) -> Value:
        given = [program.written(source).detach().requires_grad_(source.wanted) for source in sources]
        trained = [p for p in self.layer.parameters() if p.requires_grad]
        keep = getattr(self.layer, "inplace", False)
        with torch.no_grad():  # on a copy in eval mode: changes neither statistics nor random numbers
            trial = copy.deepcopy(self.layer).eval()(*(tensor.clone() for tensor in given))
        raw = program.memory.empty(trial.shape)
        tape: list[Tensor] = []
        program.tapes[self.name] = (given, trained, tape)

        def compute() -> None:
            with torch.enable_grad():
                result = self.layer(*(tensor.clone() if keep else tensor for tensor in given))
            tape[:] = [result]
            raw.copy_(result.detach())

        program.call(compute)
        return Value(raw, any(source.wanted for source in sources) or bool(trained))

    def _give_back(self, program: Program, value: Value, *sources: Value) -> None:
        given, trained, tape = program.tapes.pop(self.name)
        wanted = [source for source in sources if source.wanted]
        places = [program.memory.empty(source.raw.shape) for source in wanted]
        places += [program.memory.keep(torch.empty_like(parameter)) for parameter in trained]
        inputs = [*(tensor for tensor in given if tensor.requires_grad), *trained]
        to_result = value.gradient_of_raw

        def give_back() -> None:
            for place, gradient in zip(places, torch.autograd.grad(tape.pop(), inputs, to_result), strict=True):
                place.copy_(gradient)

        program.call(give_back)
        program.gradients.update(zip(trained, places[len(wanted) :], strict=True))
        for source, place in zip(wanted, places, strict=False):
            program.contribute(source, place)
