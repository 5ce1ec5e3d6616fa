"""A quantized network in training: weights stay real numbers, and the forward pass rounds them and all activations.

Activations have learned scales: LSQ, Esser et al. 2020, "Learned Step Size Quantization", arXiv 1902.08153. As
parameters they need nothing of their own in checkpoints, averages or several processes, which running ranges (Jacob et
al. 2018, arXiv 1712.05877, section 3) would. Zeros stay as calibrated. A weight's scale follows its largest value, per
output: at eight bits rounding costs little, and nothing saturates. Gradients pass the rounding unchanged, and are 0
where a value saturates.

Batch norm is folded before: a trained network no longer needs it, and the weights that are rounded are those that will
be stored. Folding in every step, with the statistics of each batch, would round other weights than those in the end.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops.op import BYTES
from smallcnn.ir.rewrite import rewrite
from smallcnn.ir.types import RANGES, Grid
from smallcnn.module import GraphModule
from smallcnn.reference.numbers import stored
from smallcnn.torch_layers import Conv2d, layer
from smallcnn.transform.quantize.stored import weight_grid

_LEAST = 2.0**-100
"""No scale is below, so that all are normal numbers of float32."""


class FakeQuantized(GraphModule):
    """The module of a quantized graph, with `weights` as real numbers, and a learned scale in each `Quantize`.

    The quantized image keeps its scale. Where edges must share a grid they share the parameter. Dropout and any other
    layer compute with the real numbers stood for. Weights on grids must be int8 with zero 0, as
    `transform.quantize.insert` makes them.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray]) -> None:
        shared = _shared_grids(graph)
        grids = {name: graph[name].tensor.grid for name in shared.values()}
        scales = {name: nn.Parameter(torch.tensor(grid.scale[0])) for name, grid in grids.items() if grid}

        def make(graph: Graph, node: Node) -> nn.Module:
            channels = graph.input_shapes(node)[0][-1]
            match node.op:
                case ops.Quantize() if node.name in shared:
                    return _LearnedQuantize(node.op, scales[shared[node.name]])
                case ops.Conv() if node.op.grid:
                    return _RoundedConv2d(node.op, channels)
                case ops.Dense() if node.op.grid:
                    return _RoundedLinear(channels, node.op.out, bias=node.op.bias)
                case _:
                    return layer(graph, node)

        super().__init__(graph, make)
        state = self.state_dict()
        for name in graph.weights:
            state[name].copy_(torch.from_numpy(np.array(weights[name], np.float32)))

    def stored(self) -> tuple[Graph, dict[str, np.ndarray]]:
        """The network as it is now, with the present scales, and its weights as stored numbers."""
        values = {name: value.detach().cpu().float().numpy() for name, value in self.state_dict().items()}
        learned = {
            name: Grid((module.step().item(),), (-module.low,))
            for name, module in self.named_modules()
            if isinstance(module, _LearnedQuantize)
        }
        graph = _with_grids(self.graph, learned)
        grids: dict[str, Grid] = {}
        for node in graph:
            if isinstance(node.op, ops.Conv | ops.Dense) and node.op.grid is not None:
                source = graph[node.inputs[0]].tensor.grid
                assert source is not None
                weight, bias = values[f"{node.name}.weight"], values.get(f"{node.name}.bias")
                grids[node.name] = weight_grid(weight, bias, source)
        graph = _with_grids(graph, grids)
        return graph, {
            name: stored(weight.tensor.number, weight.tensor.grid, values[name]) if weight.tensor.grid else values[name]
            for name, weight in graph.weights.items()
        }


def _with_grids(graph: Graph, grids: Mapping[str, Grid]) -> Graph:
    """The graph with other grids for these operators."""
    changed: dict[str, ops.Op] = {}
    for name, grid in grids.items():
        op = graph[name].op
        assert isinstance(op, ops.Quantize | ops.Conv | ops.Dense)
        changed[name] = replace(op, grid=grid)
    return rewrite(graph, ops=changed)


def _shared_grids(graph: Graph) -> dict[str, str]:
    """Each `Quantize` whose scale is learned, with the first of those that must have one grid."""
    first: dict[str, str] = {}  # of each node with bytes: the first Quantize that its grid is from
    for node in graph:
        if isinstance(node.op, ops.Quantize):
            first[node.name] = node.name
        elif node.tensor.number in BYTES:
            one, *others = dict.fromkeys(first[name] for name in node.inputs)
            first = {name: one if found in others else found for name, found in first.items()} | {node.name: one}
    quantizes = [node for node in graph if isinstance(node.op, ops.Quantize)]
    fixed = {first[node.name] for node in quantizes if graph.nodes[0].name in node.inputs}
    return {node.name: first[node.name] for node in quantizes if first[node.name] not in fixed}


class _LearnedQuantize(nn.Module):
    """Numbers rounded to a grid whose scale is learned."""

    def __init__(self, op: ops.Quantize, scale: nn.Parameter) -> None:
        super().__init__()
        self.scale = scale
        self.low, self.high = (end - op.grid.zero[0] for end in RANGES[op.number])

    def step(self) -> Tensor:
        """The scale, above 0."""
        return self.scale.abs().clamp_min(_LEAST)

    def forward(self, x: Tensor) -> Tensor:
        features = x[0].numel() if len(x) else 1
        return fake_quantize(x, self.step(), self.low, self.high, (features * self.high) ** -0.5)


class _RoundedConv2d(Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, fake_quantize_weight(weight), bias)


class _RoundedLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, fake_quantize_weight(self.weight), self.bias)


def fake_quantize(x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
    """`x` in whole steps of `scale`, from `low` to `high` of them: the nearest, ties to even.

    The gradient of `scale` is multiplied by `factor`; LSQ's is 1 / sqrt(numbers per image * high).
    """
    rounded: Tensor = _FakeQuantize.apply(x, scale, low, high, factor)  # type: ignore[no-untyped-call]
    return rounded


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """Weights (out, ...) in whole steps of their scale, max |weight| / 127 per output. The gradient passes through."""
    largest = weight.detach().abs().amax(tuple(range(1, weight.ndim)), keepdim=True).double()
    scale = (largest / 127).to(weight.dtype).clamp_min(_LEAST)
    return (torch.round(weight / scale) * scale).detach() + (weight - weight.detach())  # the second term is 0, exactly


class _FakeQuantize(torch.autograd.Function):
    """Rounding with the gradients of LSQ (its equations 3 and 5), in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
        result = torch.div(x, scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, scale, result)
        ctx.bounds, ctx.factor = (low, high), factor
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, result = ctx.saved_tensors
        low, high = ctx.bounds
        # to x: 1 inside, 0 outside; to the scale: (result - x) / scale inside, result / scale outside, which is a bound
        least, most = (low - 0.5) * scale.item(), (high + 0.5) * scale.item()
        to_x = torch.ops.aten.hardtanh_backward(gradient, x, least, most)
        to_scale = (gradient * result).addcmul_(to_x, x, value=-1).sum() / scale * ctx.factor
        return to_x, to_scale, None, None, None
