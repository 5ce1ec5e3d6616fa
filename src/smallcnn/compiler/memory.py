"""Memory planning: places every tensor in one arena, sized at compile time.

A storage lives from the call that first writes it to the last that reads it; storages that live at the same time never
overlap. Placed largest first, each in the lowest gap that fits.
"""

from collections.abc import Sequence

from smallcnn.compiler.calls import Call
from smallcnn.compiler.operands import Arena, Map
from smallcnn.compiler.storage import Storage, up

_ALIGN = 64
_SLACK = 256
"""Bytes after every tensor: the last vector of the last pixel may be read or written past the end."""


def storages(call: Call) -> set[Storage]:
    """The storages that a call reads and writes."""
    found: set[Storage] = set()
    for operand in call.operands:
        if isinstance(operand, Map):
            found.add(operand.storage.root)
        elif isinstance(operand, Arena):
            found |= {storage.root for storage in operand.view.storages}
    return found


def arrange(calls: Sequence[Call]) -> tuple[dict[Storage, int], int]:
    """Offset of every storage and the arena's size, in bytes."""
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for i, call in enumerate(calls):
        for storage in storages(call):
            first.setdefault(storage, i)
            last[storage] = i
    offsets: dict[Storage, int] = {}
    for storage in sorted(first, key=lambda s: (-s.bytes, first[s])):
        taken = sorted(
            (offsets[other], offsets[other] + _size(other))
            for other in offsets
            if first[other] <= last[storage] and first[storage] <= last[other]
        )
        start = 0
        for begin, end in taken:
            if start + _size(storage) <= begin:
                break
            start = max(start, end)
        offsets[storage] = start
    return offsets, max((offsets[s] + _size(s) for s in offsets), default=0)


def _size(storage: Storage) -> int:
    return up(storage.bytes + _SLACK, _ALIGN)
