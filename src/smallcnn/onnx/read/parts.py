"""The end of a detector that joins all it says of a cell of its map: objectness, the code of a box, class scores.

The sigmoid of the objectness stays in the network; the softmax of the scores belongs to the decoding that follows.
"""

from collections.abc import Mapping

import onnx
from onnx import AttributeProto

PARTS = ("coded", "scores", "objectness")
_AXES = 4


def parts_of(graph: onnx.GraphProto) -> Mapping[str, str] | None:
    """The tensors, (N, C, H, W), of the three `PARTS`; None unless the only output joins them along the channels."""
    makers = {name: node for node in graph.node for name in node.output if name}
    end = makers.get(graph.output[0].name) if len(graph.output) == 1 else None
    if end is None or end.op_type != "Concat" or len(end.input) != len(PARTS) or _whole(end, "axis") not in (1, -3):
        return None
    objectness, coded, scores = end.input
    before = _before_softmax(scores, makers)
    first = makers.get(objectness)
    if first is None or first.op_type != "Sigmoid" or before is None:
        return None
    return {"coded": coded, "scores": before, "objectness": objectness}


def _before_softmax(name: str, makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """The source of a softmax over the channels, which may stand between two transposes."""
    order = list(range(_AXES))  # of the softmax's result, by axes of `name`
    node = makers.get(name)
    if node is not None and node.op_type == "Transpose":
        order = _order(node)
        node = makers.get(node.input[0])
    if node is None or node.op_type != "Softmax":
        return None
    axis = _whole(node, "axis", -1)
    source, before = node.input[0], makers.get(node.input[0])
    back = list(range(_AXES))
    if order != back and before is not None and before.op_type == "Transpose":
        back, source = _order(before), before.input[0]
    straight = len(order) == len(back) == _AXES and [back[place] for place in order] == list(range(_AXES))
    return source if straight and -_AXES <= axis < _AXES and order[1] == axis % _AXES else None


def _whole(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    found = [attribute.i for attribute in node.attribute if attribute.name == name]
    return found[0] if found else default


def _order(node: onnx.NodeProto) -> list[int]:
    """A transpose's order of axes, if it has four."""
    found = [list(one.ints) for one in node.attribute if one.name == "perm" and one.type == AttributeProto.INTS]
    return found[0] if found and sorted(found[0]) == list(range(_AXES)) else []
