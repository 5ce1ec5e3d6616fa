"""Pairs of ranges in .safetensors files: tensors by their names, the rest by its bytes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from smallcnn.delta.pairs import Blocks, Pair

_WIDTHS = {"F32": 4, "I32": 4, "U32": 4}
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a file: type, shape, and its range in bytes of the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensor_pairs(blocks: Blocks) -> list[Pair] | None:
    """Pairs that cover the new file in order, one for each tensor; None if one of the files is no .safetensors file.

    A tensor with another number of rows is paired with the rows that both have: a class was added or removed.
    """
    before, after = _read(blocks.old), _read(blocks.new)
    if before is None or after is None:
        return None
    (header, known), (new_header, tensors) = before, after
    found = [Pair(0, new_header, 0, header)]
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        end = found[-1].new_end
        if tensor.start < end:
            return None  # tensors that overlap
        found += blocks.pairs(end, tensor.start)
        found += _paired(tensor, known.get(name), blocks)
    return found + list(blocks.pairs(found[-1].new_end, len(blocks.new)))


def byte_tensors(content: bytes) -> list[tuple[int, int]]:
    """The ranges of a .safetensors file's vectors of uint8, in order; none of another file."""
    _, tensors = _read(content) or (0, {})
    found = sorted((each.start, each.end) for each in tensors.values() if each.kind == "U8" and len(each.shape) == 1)
    overlap = any(end > start for (_, end), (start, _) in pairwise(found))
    return [] if overlap else found


def _paired(tensor: _Tensor, known: _Tensor | None, blocks: Blocks) -> Iterator[Pair]:
    """A tensor's range next to that of the old file's tensor of the same name, type and rows."""
    if tensor.start == tensor.end:
        return
    if known is None or known.kind != tensor.kind or known.shape[1:] != tensor.shape[1:]:
        yield from blocks.pairs(tensor.start, tensor.end)
        return
    both = min(tensor.end - tensor.start, known.end - known.start)
    if both:
        yield Pair(tensor.start, tensor.start + both, known.start, known.start + both, _WIDTHS.get(tensor.kind, 1))
    if tensor.start + both < tensor.end:
        yield Pair(tensor.start + both, tensor.end, known.end, known.end)


def _read(content: bytes) -> tuple[int, dict[str, _Tensor]] | None:
    """The end of the header and the tensors by name; None if this is no .safetensors file.

    Nothing depends on whether the file is right: pairs only say where to look for differences.
    """
    start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    if not _LENGTH < start <= len(content):
        return None
    try:
        header = json.loads(content[_LENGTH:start])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            shape, (first, last) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
            tensors[name] = _Tensor(str(entry["dtype"]), shape, start + first, start + last)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    if any(not start <= tensor.start <= tensor.end <= len(content) for tensor in tensors.values()):
        return None
    return start, tensors
