"""Inlines the functions that a file defines itself.

The second exporter of PyTorch 2.1 to 2.4 writes them.
"""

from collections.abc import Iterable

import onnx
from onnx import AttributeProto

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown
from smallcnn.onnx.read.outline import MOST_STEPS

_Key = tuple[str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions inlined. FileError if they call each other in a cycle or expand too far."""
    if not model.functions:
        return model
    from onnx import inliner

    _Counting(model).check()
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the C++ side's exceptions have no common base
        name = shown(model.functions[0].name)
        raise FileError(f"defines functions of its own ({name}) that cannot be inlined") from error


class _Counting:
    """Counts the operators after inlining."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = model.graph.node
        self._functions = {(f.domain, f.name): f for f in model.functions}
        self._sizes: dict[_Key, int] = {}

    def check(self) -> None:
        """FileError if there are too many, or if a function calls itself."""
        self._add(self._nodes, ())

    def _add(self, nodes: Iterable[onnx.NodeProto], inside: tuple[_Key, ...]) -> int:
        count = 0
        for node in nodes:
            count += 1 + self._of((node.domain, node.op_type), inside)
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    count += self._add(attribute.g.node, inside)
            if count > MOST_STEPS:
                raise FileError(f"expands its functions to more than {MOST_STEPS:,} operators, which is the limit")
        return count

    def _of(self, key: _Key, inside: tuple[_Key, ...]) -> int:
        if key not in self._functions:
            return 0
        if key in inside or len(inside) > 50:
            raise FileError(f"defines functions that call each other in a circle ({shown(key[1])})")
        if key not in self._sizes:
            self._sizes[key] = self._add(self._functions[key].node, (*inside, key))
        return self._sizes[key]
