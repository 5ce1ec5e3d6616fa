"""`accelerate`: a GraphModule as a list of steps that go forward and back by themselves."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smallcnn.module import GraphModule
from smallcnn.train.fast.memory import Memory
from smallcnn.train.fast.native import library
from smallcnn.train.fast.plan import plan
from smallcnn.train.fast.steps import Run, Step
from smallcnn.train.fast.values import Value


def accelerate(module: GraphModule) -> Callable[[Tensor], Tensor]:
    """A function that computes what `module` does, (N, C, H, W) float32 on the CPU -> (N, classes), and its gradients.

    Parameters and buffers stay the module's own; running statistics move as in torch. In eval mode, without gradients,
    on another device, in another precision or under autocast the module itself is called. Results are the same, bit for
    bit, for the same number of threads (torch.get_num_threads()). Second derivatives are not available.

    Raises CompileError, saying what to install, if the kernels cannot be compiled.
    """
    library()
    steps, memory = plan(module), Memory()

    def call(x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not (plain and module.training and torch.is_grad_enabled() and (parameters or x.requires_grad)):
            return module(x)
        result: Tensor = _Network.apply(module, steps, memory, x, *parameters)  # type: ignore[no-untyped-call]
        return result

    return call


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, module: GraphModule, steps: list[Step], memory: Memory, x: Tensor, *parameters: nn.Parameter
    ) -> Tensor:
        run = Run(memory)
        graph = module.graph
        first = Value(x.detach().contiguous(memory_format=torch.channels_last), wanted=ctx.needs_input_grad[3])
        run.values[graph.nodes[0].name] = first
        for step in steps:
            step.forward(run)
        output = run.values[graph.output]
        output.readers += 1
        ctx.run, ctx.steps, ctx.first, ctx.output, ctx.parameters = run, steps, first, output, parameters
        return run.written(output).view_as(output.raw)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        run: Run = ctx.run
        run.contribute(ctx.output, gradient)
        for step in reversed(ctx.steps):
            step.backward(run)
        of_input = ctx.first.grad if ctx.first.wanted else None
        result = (None, None, None, of_input, *(run.gradients.get(parameter) for parameter in ctx.parameters))
        ctx.run = ctx.first = ctx.output = None
        return result
