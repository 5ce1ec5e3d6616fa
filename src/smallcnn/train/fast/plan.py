"""Graph -> steps: fuses nodes and picks the kernel of each step."""

from typing import cast

from torch import nn

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader
from smallcnn.module import GraphModule
from smallcnn.train.fast import steps
from smallcnn.train.fast.steps import Step
from smallcnn.train.fast.values import CLIP, HARD_SWISH, IDENTITY, LEAKY, Act, BatchNorm


def is_rows(node: Node) -> bool:
    """Whether a node's result is rows, (N, C), which no step computes."""
    return len(node.shape) == 2


def handed_over(graph: Graph) -> list[str]:
    """The nodes whose results leave the steps: outputs, and what becomes rows."""
    wanted = {output.node for output in graph.outputs}
    wanted.update(name for node in graph if is_rows(node) for name in node.inputs)
    return [node.name for node in graph if node.name in wanted and not is_rows(node)]


def plan(module: GraphModule) -> list[Step]:
    """The steps of a network, in order; every node except the input and rows belongs to one."""
    graph, made, done = module.graph, [], set[str]()
    for node in graph.nodes[1:]:
        if node.name not in done and not is_rows(node):
            chain = [node]
            step = _step(module, graph, node, chain)
            done.update(one.name for one in chain)
            step.name = chain[-1].name
            made.append(step)
    return made


def _step(module: GraphModule, graph: Graph, node: Node, chain: list[Node]) -> Step:
    """The step that starts with `node`; appends the nodes fused into it to `chain`."""
    layer, name, inputs = module.get_submodule(node.name), node.name, node.inputs
    if len(graph.input_shapes(node)[0]) != 3:
        return steps.Layer(name, inputs, layer)
    match node.op:
        case ops.Conv() as op if _is_native(graph, node, op):
            norm = None if op.bias else _take_norm(module, graph, chain)
            (top, bottom), (left, right) = op.padding
            conv = cast(nn.Conv2d, layer)
            return steps.Convolution(name, inputs, conv, norm, _take_act(graph, chain), (top, left), (bottom, right))
        case ops.BatchNorm():
            return steps.Normalisation(name, inputs, cast(BatchNorm, layer), _take_act(graph, chain))
        case ops.Add() if len(inputs) == 2:
            return steps.Add(name, inputs, _take_act(graph, chain))
        case ops.Activation() | ops.Clip() if act := _act(node):
            return steps.Activation(name, inputs, act)
        case ops.Concat():
            return steps.Concat(name, inputs)
        case ops.Shuffle() as op:
            return steps.Shuffle(name, inputs, op.groups)
        case ops.Pool() as op:
            return steps.Pool(
                name, inputs, op.kernel, op.stride, op.padding, op.function == "average", op.count_padding
            )
        case ops.GlobalPool():
            return steps.Pool(name, inputs, None, (1, 1), ops.NO_PADDING, True, False)
        case _:
            return steps.Layer(name, inputs, layer)


def _is_native(graph: Graph, node: Node, op: ops.Conv) -> bool:
    channels = graph.input_shapes(node)[0][-1]
    pointwise = op.kernel == op.stride == (1, 1) and op.padding == ops.NO_PADDING
    return op.dilation == (1, 1) and (op.groups == 1 or pointwise or op.groups == channels == op.out)


def _take_norm(module: GraphModule, graph: Graph, chain: list[Node]) -> BatchNorm | None:
    reader = only_reader(graph, chain[-1])
    if reader is None or not isinstance(reader.op, ops.BatchNorm):
        return None
    chain.append(reader)
    return cast(BatchNorm, module.get_submodule(reader.name))


def _take_act(graph: Graph, chain: list[Node]) -> Act:
    reader = only_reader(graph, chain[-1])
    if reader is None or not (act := _act(reader)):
        return IDENTITY
    chain.append(reader)
    return act


def _act(node: Node) -> Act | None:
    match node.op:
        case ops.Activation(function="relu"):
            return Act(CLIP, 0.0, float("inf"))
        case ops.Activation(function="relu6"):
            return Act(CLIP, 0.0, 6.0)
        case ops.Activation(function="leaky_relu") as op:
            return Act(LEAKY, op.slope)
        case ops.Activation(function="hard_swish"):
            return Act(HARD_SWISH)
        case ops.Clip() as op:
            return Act(CLIP, op.low, op.high)
    return None
