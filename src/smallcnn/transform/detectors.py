"""A detector for other classes of objects or another input size: the operators that change."""

from dataclasses import replace

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Output
from smallcnn.ir.ops import AnchorGrid, Op, Shape
from smallcnn.ir.predictors import Predictor, code_predictors, detector, score_predictors
from smallcnn.ir.rewrite import rewrite


def classes_replaced(graph: Graph, classes: int) -> dict[str, Op]:
    """Operators of a detector for another number of classes of objects: new class predictors, everything else as it is.

    A background stays the first column. New weights are float32. Raises GraphError if scores do not come from
    convolutions, or there are no classes.
    """
    found = detector(graph)
    assert found is not None
    assert isinstance(found.op, ops.Detect)
    columns = graph[found.inputs[1]].shape[1]
    if classes < 1:
        raise GraphError(f"{graph.name}: a detector needs at least 1 class of objects, not {classes}")
    changed: dict[str, Op] = {}
    wanted = classes + found.op.background
    predictors = score_predictors(graph)
    if sum(one.rows.shape[0] for one in predictors) != found.op.anchor_count:
        raise GraphError(f"{graph.name}: its class scores do not come from convolutions alone; none can be replaced")
    for predictor in predictors if wanted != columns else ():
        op = predictor.conv.op
        assert isinstance(op, ops.Conv)
        changed[predictor.conv.name] = replace(op, out=op.out // columns * wanted, number="float32", grid=None)
        changed[predictor.rows.name] = ops.Rows(columns=wanted)
    return changed


def anchors_replaced(graph: Graph, changed: dict[str, Op]) -> dict[str, Op]:
    """The detector's last operator once the `changed` ones change its maps: anchors follow them and the input.

    Each grid has the cells of its map. A step that covers the input still does; another stays the same in pixels.
    Anchors keep their size relative to the input's shorter side, and their shape in pixels. Empty for a network that is
    no detector.
    """
    found = detector(graph)
    if found is None:
        return {}
    assert isinstance(found.op, ops.Detect)
    predictors = code_predictors(graph)
    if [one.conv.shape[:2] for one in predictors] != [grid.cells for grid in found.op.anchors]:
        raise GraphError(f"{graph.name} has a fixed resolution: its anchors are not those of its predictors' maps")
    moved = _maps(graph, predictors, changed)
    grids = tuple(
        _followed(grid, graph.input_shape, moved.input_shape, moved[one.conv.name].shape)
        for grid, one in zip(found.op.anchors, predictors, strict=True)
    )
    return {found.name: replace(found.op, anchors=grids)}


def _maps(graph: Graph, predictors: tuple[Predictor, ...], changed: dict[str, Op]) -> Graph:
    """The network up to its predictors, with operators changed."""
    needed = {one.conv.name for one in predictors} | set(graph.taps)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in graph if node.name in needed)
    read = {name for node in nodes for name in node.inputs}
    ends = [node.name for node in nodes if node.name not in read]
    part = Graph(graph.name, nodes, tuple(Output(name.replace(".", "_"), name) for name in ends), graph.taps)
    return rewrite(part, ops={name: op for name, op in changed.items() if name in needed})


def _followed(grid: AnchorGrid, old: Shape, new: Shape, cells: Shape) -> AnchorGrid:
    (high, wide), (tall, broad) = old[:2], new[:2]
    scale = min(new[:2]) / min(old[:2])
    covers = [step * count for step, count in zip(grid.step, grid.cells, strict=True)]
    down, right = (
        1 / count if abs(covered - 1) < 1e-6 else step * side / other
        for covered, count, step, side, other in zip(covers, cells[:2], grid.step, old[:2], new[:2], strict=True)
    )
    return replace(
        grid,
        cells=(cells[0], cells[1]),
        step=(down, right),
        sizes=tuple((width * wide * scale / broad, height * high * scale / tall) for width, height in grid.sizes),
    )
