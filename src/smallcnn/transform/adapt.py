"""Adapts a network to another input size or number of classes: Graph -> Graph, for fine-tuning a trained network.

Operators stay the same; shapes follow, and so does padding that depends on them, such as TensorFlow's SAME.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.ops import Op
from smallcnn.ir.predictors import detector
from smallcnn.ir.rewrite import rewrite, unused_name
from smallcnn.transform.detectors import anchors_replaced, classes_replaced


def with_resolution(graph: Graph, resolution: tuple[int, int]) -> Graph:
    """The network for inputs of (height, width).

    Padding that depends on the size, such as TensorFlow's SAME, and the size to which a map is resized are taken from
    the registered network at the new size if the graph's name is registered and both have the same windows; otherwise
    they stay the same.

    A detector's anchors follow its maps: see `detectors.anchors_replaced`.

    Raises GraphError naming the first layer that does not fit, or whose weights would change shape.
    """
    first = graph.nodes[0]
    changed = {first.name: ops.Input((*resolution, graph.input_shape[2])), **_windows_at(graph, resolution)}
    result = rewrite(graph, ops=changed | anchors_replaced(graph, changed))
    for name, weight in graph.weights.items():
        if result.weights[name].shape != weight.shape:
            raise GraphError(
                f"{graph.name} has a fixed resolution, {graph.input_shape[0]}x{graph.input_shape[1]}: {name} would be "
                f"{result.weights[name].shape} instead of {weight.shape}"
            )
    return result


def _windows_at(graph: Graph, resolution: tuple[int, int]) -> dict[str, Op]:
    """Convolutions, pools and resizes of the registered network at another size; none if it is not registered."""
    from smallcnn import zoo  # running a model needs no network of the registry

    common = {"channels": graph.input_shape[2]}
    try:
        model = zoo.parse(graph.name)
        here = model.build(resolution=graph.input_shape[:2], **common)
        there = model.build(resolution=resolution, **common)
    except GraphError:
        return {}
    names = {node.name for node in here}
    changed: dict[str, Op] = {}
    for node in graph:
        if isinstance(node.op, ops.Conv | ops.Pool):
            if node.name not in names or _window(here[node.name].op) != _window(node.op):
                return {}
            changed[node.name] = replace(node.op, padding=_window(there[node.name].op)[2])
        elif isinstance(node.op, ops.Resize) and node.name in names and here[node.name].op == node.op:
            changed[node.name] = there[node.name].op
    return changed


def _window(op: Op) -> tuple[ops.Pair, ops.Pair, ops.Padding]:
    """Kernel, stride and padding."""
    if not isinstance(op, ops.Conv | ops.Pool):
        return (0, 0), (0, 0), ops.NO_PADDING
    return op.kernel, op.stride, op.padding


def with_classes(graph: Graph, classes: int) -> Graph:
    """The network with its last layer of weights resized to another number of classes, and without bounds on logits.

    A detector gets new predictors of class scores, for this many classes of objects. New weights are float32, as they
    will be trained. Raises GraphError if the last weights are not a classifier's.
    """
    if detector(graph):
        return rewrite(graph, ops=classes_replaced(graph, classes))
    last = classifier(graph)
    assert isinstance(last.op, ops.Conv | ops.Dense)
    fresh = replace(last.op, out=classes, number="float32", grid=None) if last.op.out != classes else last.op
    after = graph.nodes[graph.nodes.index(last) :]
    bounds = {node.name for node in after if _bounds(node.op)}
    changed = rewrite(graph, ops={last.name: fresh}, without=bounds)
    if changed.output_shape != (classes,):
        raise GraphError(f"{graph.name}: replacing {last.name} gives {changed.output_shape}, not {classes} classes")
    return changed


def classifier(graph: Graph) -> Node:
    """The last layer of weights. Raises GraphError unless it is a convolution or a dense layer."""
    last = next((node for node in reversed(graph.nodes) if graph.weights_of(node)), graph[graph.output])
    if not isinstance(last.op, ops.Conv | ops.Dense):
        raise GraphError(f"{graph.name} ends in {last.name}, a {last.op.kind}; it has no classifier to replace")
    return last


def with_input_turned(graph: Graph, weights: Mapping[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The same network for an input with its three channels in the opposite order.

    If only ungrouped convolutions read the input, their weights are reversed; otherwise the input is.
    """
    first = graph.nodes[0]
    readers = graph.consumers[first.name]
    turned = dict(weights)
    seen = {*graph.taps, *(output.node for output in graph.outputs)}
    if first.name not in seen and all(isinstance(node.op, ops.Conv) and node.op.groups == 1 for node in readers):
        for node in readers:
            turned[f"{node.name}.weight"] = np.ascontiguousarray(turned[f"{node.name}.weight"][:, ::-1])
        return graph, turned
    names = [unused_name(graph, f"channel_{i}") for i in range(3)]
    joined = unused_name(graph, "channels_turned")

    def turn(image: Node) -> list[Node]:
        parts = [make_node(name, ops.Slice(start=i, stop=i + 1), [image]) for i, name in enumerate(names)]
        return [*parts, make_node(joined, ops.Concat(), parts[::-1])]

    return rewrite(graph, after={first.name: turn}), turned


def keep(graph: Graph, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The `weights` that `graph` also has with the same shape and number type."""
    wanted = {name: (weight.shape, weight.tensor.number) for name, weight in graph.weights.items()}
    return {name: value for name, value in weights.items() if wanted.get(name) == (value.shape, _number(value))}


def _number(value: np.ndarray) -> str:
    """The number type an array is stored in; any floating-point type is float32."""
    return "float32" if np.issubdtype(value.dtype, np.floating) else str(value.dtype)


def _bounds(op: Op) -> bool:
    return isinstance(op, ops.Clip) or (isinstance(op, ops.Activation) and op.function in ("sigmoid", "hard_sigmoid"))
