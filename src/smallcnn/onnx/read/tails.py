"""Tails after a classifier's probabilities: the best class, its name, a map from names to probabilities.

scikit-learn's and Core ML's converters end in ZipMap and ArgMax, others in ArgMax or TopK. The tail is not part of the
network: it is cut off, and its class names are kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, numpy_helper
from smallcnn.errors import FileError
from smallcnn.ir.graph import LOGITS

_CHOOSES = ("ArgMax", "TopK", "ReduceMax")
"""Operators that pick among the classes."""

_NAMES = ("ZipMap", "LabelEncoder")
"""Operators of ai.onnx.ml that give classes their names."""

_MOVES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""Operators that may follow those; anywhere else they belong to the network."""

_ENDINGS = ("Cast", "Flatten", "Identity", "LogSoftmax", "Reshape", "Sigmoid", "Softmax", "Squeeze")
"""Operators between logits and probabilities."""

_MOST_LABELS = 2**16


@dataclass(frozen=True)
class Cut:
    """Where the network ends, by the name of each output, and the names of the classes if the file has them."""

    outputs: Mapping[str, str]
    labels: tuple[str, ...] | None


def cut(graph: onnx.GraphProto) -> Cut:
    """The tensor from which all of the file's outputs derive, called "logits"; or else those of each output."""
    makers = {name: node for node in graph.node for name in node.output if name}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ends: dict[str, str] = {}
    labels: dict[str, tuple[str, ...] | None] = {}
    for value in graph.output:
        end, known = _end(value.name, makers, stored)
        ends.setdefault(end, value.name)
        labels[end] = labels.get(end) or known
    if not ends:
        raise FileError("gives no output")
    deepest = max(ends, key=lambda name: len(_before(name, makers)))
    if ends.keys() <= {*_before(deepest, makers)}:
        return Cut({LOGITS: deepest}, next((names for names in labels.values() if names), None))
    return Cut({name: end for end, name in ends.items()}, None)


def _before(name: str, makers: Mapping[str, onnx.NodeProto]) -> list[str]:
    """`name`, and the tensors it derives from by a softmax or a reshape."""
    chain = [name]
    while (node := makers.get(chain[-1])) and node.op_type in _ENDINGS and node.input and node.input[0] not in chain:
        chain.append(node.input[0])
    return chain


def _end(
    name: str, makers: Mapping[str, onnx.NodeProto], stored: Mapping[str, TensorProto]
) -> tuple[str, tuple[str, ...] | None]:
    """The source of an output without its tail, and the labels in the tail."""
    labels, end, at, moved = None, name, name, 0
    while (node := makers.get(at)) is not None and node.input and moved < 100:
        moved += 1
        if node.op_type in ("ArrayFeatureExtractor", "Gather") and len(node.input) > 1:
            names = _labels_of(node.input[0], makers, stored)
            if names is None:
                break
            labels, at = labels or names, node.input[1]
        elif node.op_type in _NAMES and node.domain == "ai.onnx.ml":
            labels, at = labels or _labels_in(node), node.input[0]
            end = at
        elif node.op_type in _CHOOSES and node.domain in ("", "ai.onnx"):
            at = end = node.input[0]
        elif node.op_type in _MOVES and node.domain in ("", "ai.onnx"):
            at = node.input[0]
        else:
            break
    return end, labels if end != name else None


def _labels_in(node: onnx.NodeProto) -> tuple[str, ...] | None:
    """The names of a ZipMap, one per class, or of a LabelEncoder whose keys are 0, 1, 2, ..."""
    lists = {attribute.name: list(attribute.ints) or list(attribute.strings) for attribute in node.attribute}
    keys = lists.get("keys_int64s")
    if keys is not None and keys != list(range(len(keys))):
        return None
    wanted = ("classlabels_int64s", "classlabels_strings", "values_strings", "values_int64s", "classes_strings")
    return next((_words(lists[key]) for key in wanted if lists.get(key)), None)


def _labels_of(
    name: str, makers: Mapping[str, onnx.NodeProto], stored: Mapping[str, TensorProto]
) -> tuple[str, ...] | None:
    """The values of a constant list of names or whole numbers; None if it is not one."""
    tensor, node = stored.get(name), makers.get(name)
    if tensor is None and node is not None and node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name in ("value_strings", "value_ints"):
                return _words(attribute.strings or attribute.ints)
            if attribute.name == "value":
                tensor = attribute.t
    if tensor is None or tensor.external_data or len([side for side in tensor.dims if side != 1]) > 1:
        return None
    if tensor.data_type == TensorProto.STRING:
        return _words(tensor.string_data)
    if tensor.data_type in (TensorProto.INT64, TensorProto.INT32):
        try:
            return _words(numpy_helper.to_array(tensor).reshape(-1).tolist())
        except ValueError:
            return None
    return None


def _words(values: Iterable[bytes | int]) -> tuple[str, ...] | None:
    """Labels as text; None if there are more than any classifier has."""
    values = list(values)
    if len(values) > _MOST_LABELS:
        return None
    return tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values)
