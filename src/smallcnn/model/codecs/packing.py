"""Weights packed: each tensor with the codec that takes the fewest bytes, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir import checks
from smallcnn.ir.graph import Graph
from smallcnn.model.codecs import kinds
from smallcnn.model.codecs.codec import Codec
from smallcnn.model.codecs.deflated import deflate, inflate_parts

Array = np.ndarray

MOST_RATIO = 256
"""Bytes of weights that a packed byte may stand for, beyond the first MiB: no file unpacks to what it does not hold."""
_FREE = 2**20


@dataclass(frozen=True)
class Packed:
    """A tensor's codec, and its bytes in the file."""

    codec: Codec
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The codec's name and parameters, and the number of bytes."""
        return kinds.to_json(self.codec) | {"bytes": self.bytes}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """The inverse of `to_json`. Raises FileError."""
        if not (isinstance(record, dict) and checks.is_whole(record.get("bytes"), 0)):
            raise FileError(f"{checks.shown(record)} is no packed tensor")
        codec = {key: value for key, value in record.items() if key != "bytes"}
        return cls(kinds.from_json(codec), record["bytes"])


def pack(graph: Graph, weights: Mapping[str, Array]) -> tuple[list[Packed], bytes] | None:
    """The weights in the graph's order; None if they are so regular that `unpack` would not trust the result."""
    made, streams = [], []
    for name, weight in graph.weights.items():
        value = np.ascontiguousarray(weights[name], weight.tensor.number)
        codec, stream = min(((codec, deflate(parts)) for codec, parts in kinds.candidates(value)), key=_length)
        made.append(Packed(codec, len(stream)))
        streams.append(stream)
    content = b"".join(streams)
    return (made, content) if _declared(graph) <= _allowed(content) else None


def unpack(graph: Graph, packed: list[Packed], content: bytes) -> dict[str, Array]:
    """The inverse of `pack`. Raises FileError if anything in it does not fit the rest."""
    tensors = graph.weights
    if len(packed) != len(tensors):
        raise FileError(f"{len(packed):,} packed tensors for a network that stores {len(tensors):,}")
    if sum(one.bytes for one in packed) != len(content):
        raise FileError(f"{len(content):,} packed bytes, not the {sum(one.bytes for one in packed):,} of its tensors")
    if _declared(graph) > _allowed(content):
        raise FileError(f"{len(content):,} packed bytes for {_declared(graph):,} bytes of weights cannot be right")
    found, start = {}, 0
    for (name, weight), one in zip(tensors.items(), packed, strict=True):
        try:
            parts = inflate_parts(content[start : start + one.bytes], one.codec.sizes(weight.tensor))
            found[name] = one.codec.decode(weight.tensor, parts)
        except FileError as error:
            raise FileError(f"{name}: {error}") from error
        start += one.bytes
    return found


def _length(made: tuple[Codec, bytes]) -> int:
    return len(made[1])


def _declared(graph: Graph) -> int:
    return sum(weight.tensor.bytes for weight in graph.weights.values())


def _allowed(content: bytes) -> int:
    return _FREE + MOST_RATIO * len(content)
