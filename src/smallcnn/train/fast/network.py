"""`accelerate`: a GraphModule as programs, one per batch shape.

Rows, which a detector's maps are read as, follow the program: PyTorch only moves them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smallcnn.module import GraphModule
from smallcnn.train.fast.native import library
from smallcnn.train.fast.plan import handed_over, is_rows, plan
from smallcnn.train.fast.program import Program
from smallcnn.train.fast.steps import Step
from smallcnn.train.fast.values import Value


def accelerate(module: GraphModule) -> Callable[[Tensor], Tensor | dict[str, Tensor]]:
    """A faster equivalent of `module` with gradients: (N, C, H, W) float32 on the CPU -> what the module returns.

    Parameters and buffers stay the module's own; running statistics are updated as in torch. In eval mode, without
    gradients, on another device, in another precision or under autocast the module itself is called. Results are
    bitwise reproducible for the same number of threads (torch.get_num_threads()). There are no second derivatives.
    Synchronised norms (`sync_norm`) exchange their sums; each process must call this the same number of times.

    Raises CompileError, naming what to install, if the kernels cannot be compiled.
    """
    library()
    programs = _Programs(module)
    graph = module.graph
    ends, after = handed_over(graph), [node for node in graph if is_rows(node)]

    def call(x: Tensor) -> Tensor | dict[str, Tensor]:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not (plain and module.training and torch.is_grad_enabled() and (parameters or x.requires_grad)):
            return module(x)
        found: tuple[Tensor, ...] = _Network.apply(programs, x, *parameters)  # type: ignore[no-untyped-call]
        values = dict(zip(ends, found, strict=True))
        for node in after:
            values[node.name] = module.get_submodule(node.name)(*(values[name] for name in node.inputs))
        outputs = {output.name: values[output.node] for output in graph.outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    return call


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, programs: "_Programs", x: Tensor, *parameters: nn.Parameter) -> tuple[Tensor, ...]:
        lease = programs.lease(x, ctx.needs_input_grad[1])
        ctx.lease, ctx.parameters = lease, parameters
        return lease.program.forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.lease is None:
            raise RuntimeError("backward was already called for this batch, and its saved tensors are gone")
        program: _Program = ctx.lease.program
        to_input = program.backward(*gradients)
        result = (None, to_input, *(program.gradient(parameter) for parameter in ctx.parameters))
        ctx.lease = None
        return result


class _Program:
    """The program of one batch shape, with its input and output tensors: those of `handed_over`."""

    def __init__(self, module: GraphModule, steps: list[Step], shape: torch.Size, wanted: bool) -> None:
        self.calls = calls = Program()
        graph = module.graph
        self.input = calls.memory.empty(shape)
        first = calls.values[graph.nodes[0].name] = Value(self.input, wanted)
        for step in steps:
            step.forward(calls)
        ends = [calls.read(name) for name in handed_over(graph)]
        self.outputs = [calls.written(end) for end in ends]
        calls.turned = True
        self.gradients_in = [calls.memory.empty(output.shape) for output in self.outputs]
        for end, gradient in zip(ends, self.gradients_in, strict=True):
            calls.contribute(end, gradient)
        for step in reversed(steps):
            step.backward(calls)
        self.gradient_out = first.grad

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.input.copy_(x)
        for function, arguments in self.calls.forward:
            function(*arguments)
        return tuple(output.clone() for output in self.outputs)

    def backward(self, *gradients: Tensor) -> Tensor | None:
        for place, gradient in zip(self.gradients_in, gradients, strict=True):
            place.copy_(gradient)
        for function, arguments in self.calls.backward:
            function(*arguments)
        return None if self.gradient_out is None else self.gradient_out.clone()

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        gradient = self.calls.gradients.get(parameter)
        return None if gradient is None else gradient.clone()


class _Lease:
    """Holds a program while a batch is in flight; returns it once that batch can no longer be differentiated."""

    def __init__(self, program: _Program, idle: list[_Program]) -> None:
        self.program, self.idle = program, idle

    def __del__(self) -> None:
        self.idle.append(self.program)


class _Programs:
    """Valid programs so far; all are rebuilt when tensors have moved, layers are replaced or other layers train."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.steps: list[Step] = []
        self.state: object = None
        self.idle: dict[object, list[_Program]] = {}

    def lease(self, x: Tensor, wanted: bool) -> _Lease:
        tensors = [*self.module.parameters(), *self.module.buffers()]
        state = (
            [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
            [(layer, layer.training) for layer in self.module.modules()],
            torch.get_num_threads(),
        )
        if state != self.state:
            self.state, self.steps, self.idle = state, plan(self.module), {}
        idle = self.idle.setdefault((x.shape, wanted), [])
        return _Lease(idle.pop() if idle else _Program(self.module, self.steps, x.shape, wanted), idle)
