"""Epilogues: what follows a layer and is computed with it, as steps.

Activations, residual additions, changes of the number type and batch norms that could not be folded become steps of the
layer before them. `lower` walks the graph and asks here what a node adds to the layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from smallcnn.compiler import whole
from smallcnn.compiler.layers import (
    ELEMENTWISE,
    Act,
    AddBytes,
    Affine,
    Epilogue,
    OffGrid,
    OntoGrid,
    Plus,
    Round,
    Slopes,
    Term,
)
from smallcnn.compiler.storage import View
from smallcnn.errors import CompileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader
from smallcnn.ir.types import Tensor

Alongside = Callable[[Sequence[str], Sequence[int]], list[View] | None]
"""Views of results, given by name, whose channels lie like these slots; None if one is not known yet, or cannot."""


class Epilogues:
    """Steps of the nodes of one graph."""

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], alongside: Alongside) -> None:
        self.graph, self.weights, self.alongside = graph, weights, alongside

    def quantized(self, node: Node) -> ops.Quantize | None:
        """The quantize that alone reads a node."""
        reader = only_reader(self.graph, node)
        return reader.op if reader is not None and isinstance(reader.op, ops.Quantize) else None

    def absorb(
        self, follower: Node, last: Node, slots: Sequence[int], most: np.ndarray
    ) -> tuple[Epilogue, Node] | None:
        """`follower` as epilogue steps and the node whose result they give; None if it needs its own layer. `most` is
        the largest magnitude of whole sums."""
        source = last.tensor
        match follower.op:
            case ops.Add() | ops.Sub() if source.grid:
                return self._add_bytes(follower, last, slots)
            case op if isinstance(op, ELEMENTWISE) and source.grid:
                return self._of_whole(follower, source, most)
            case op if isinstance(op, ELEMENTWISE):
                return self._elementwise(follower), follower
            case ops.Dropout():
                return (), follower
            case ops.Add() | ops.Sub() as op:
                others = [name for name in follower.inputs if name != last.name]
                if len(others) != len(follower.inputs) - 1:
                    return None
                views = self.alongside(others, slots)
                sign: Literal["plus", "minus", "from"] = "plus"
                if isinstance(op, ops.Sub):
                    sign = "minus" if follower.inputs[0] == last.name else "from"
                return None if views is None else (tuple(Plus(view, sign) for view in views), follower)
            case _:
                return None

    def _add_bytes(self, node: Node, own: Node, slots: Sequence[int]) -> tuple[Epilogue, Node] | None:
        """A sum or difference of bytes as steps after one of its first two inputs, with the quantize after it."""
        at = node.inputs.index(own.name)
        others = [i for i in range(len(node.inputs)) if i != at]
        views = self.alongside([node.inputs[i] for i in others], slots) if at < 2 else None
        if views is None:
            return None
        quantize = self.quantized(node)
        new = np.float32(quantize.grid.scale[0] if quantize else 1.0)

        def term(i: int) -> Term:
            grid = self.graph[node.inputs[i]].tensor.grid
            assert grid is not None
            sign = -1 if isinstance(node.op, ops.Sub) and i == 1 else 1
            return Term(sign * float(np.float32(grid.scale[0]) / new), grid.zero[0])

        step = AddBytes(term(at), tuple(zip(views, map(term, others), strict=True)))
        if quantize is None:
            return (step,), node
        return (step, Round(quantize.grid.zero[0])), self.graph.consumers[node.name][0]

    def _of_whole(self, node: Node, source: Tensor, most: np.ndarray) -> tuple[Epilogue, Node]:
        """An elementwise operator of whole numbers."""
        assert source.grid is not None
        match node.op:
            case ops.Quantize() as op:
                whole.check(node, op.number)
                return (whole.requantize(source, op, most),), node
            case ops.Activation() | ops.Clip() as op if op.bounds:
                whole.check(node, source.number)
                return (whole.bound(op, source),), node
            case ops.Activation() as op if quantize := self.quantized(node):
                return whole.curve(op, quantize, source), self.graph.consumers[node.name][0]
            case ops.Activation() | ops.PRelu():
                return (OffGrid(source.grid), *self._elementwise(node)), node
            case _:
                return self._elementwise(node), node

    def _elementwise(self, node: Node) -> Epilogue:
        match node.op:
            case ops.Activation(function="leaky_relu", slope=slope):
                return (Act("leaky_relu", slope),)
            case ops.Activation(function=function):
                return (Act(function),)
            case ops.PRelu():
                return (Slopes(self.weights[f"{node.name}.slope"]),)
            case ops.Exp():
                return (Act("exp"),)
            case ops.Clip(low=low, high=high):
                return (Act("clip", low, high),)
            case ops.BatchNorm(epsilon=epsilon):
                gamma, beta, mean, variance = (
                    self.weights[f"{node.name}.{key}"].astype(np.float64)
                    for key in ("weight", "bias", "running_mean", "running_var")
                )
                scale = gamma / np.sqrt(variance + epsilon)
                return (Affine(scale, beta - mean * scale),)
            case ops.Quantize(number=number, grid=grid):
                return (OntoGrid(number, grid),)
            case ops.Dequantize():
                source = self.graph[node.inputs[0]].tensor
                assert source.grid is not None
                return (OffGrid(source.grid),)
            case op:
                raise CompileError(f"{node.name}: {op.kind} is not elementwise")
