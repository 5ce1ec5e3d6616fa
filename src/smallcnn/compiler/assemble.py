"""A plan as steps: every operand a place in the arena or in the blob of packed weights."""

import hashlib
from collections.abc import Sequence

import numpy as np

from smallcnn.compiler.build import kernel_name
from smallcnn.compiler.calls import Answer, Arena, Call, Constant, Picture, Table, Tensor
from smallcnn.compiler.layers import root
from smallcnn.compiler.memory import arrange
from smallcnn.compiler.program import Buffer, Step
from smallcnn.compiler.specs import Machine


class Blob:
    """Constants side by side, each on a cache line."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.known: dict[bytes, int] = {}

    def add(self, value: np.ndarray) -> int:
        """Offset in bytes; equal constants are stored once."""
        content = np.ascontiguousarray(value).tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self.known:
            padding = -self.size % 64
            self.known[key] = self.size + padding
            self.parts += [bytes(padding), content]
            self.size += padding + len(content)
        return self.known[key]

    def content(self) -> bytes:
        """All of it, with slack for the last vector."""
        return b"".join(self.parts) + bytes(256)


def emit(calls: Sequence[Call], machine: Machine) -> tuple[list[Step], bytes, int, int]:
    """Steps, weights, bytes of the arena, bytes of scratch per thread."""
    places, floats = arrange(calls)
    blob, steps = Blob(), []
    for call in calls:
        buffers = []
        base = 0
        for operand in call.operands:
            match operand:
                case Tensor(storage, first, extents, strides):
                    offset = (places[root(storage)] + first) * 4
                    buffers.append(Buffer("arena", offset, "float32", extents, strides))
                case Constant(pack):
                    kept = pack().astype(np.float32)
                    extents = kept.shape[::-1]
                    buffers.append(Buffer("weights", blob.add(kept), "float32", extents, _dense(extents)))
                case Arena(view, pixels):
                    base = min(places[root(storage)] for storage in view.storages)
                    lanes = max(
                        places[root(s)] + slot - base for s, slot in zip(view.storages, view.slots, strict=True)
                    )
                    pitch = view.storages[0].pitch
                    strides = (1, pitch) if len(pixels) == 1 else (1, pitch, pitch * pixels[0])
                    buffers.append(Buffer("arena", base * 4, "float32", (lanes + 1, *pixels), strides))
                case Table(view, groups):
                    pairs = zip(view.storages, view.slots, strict=True)
                    table = np.array([places[root(storage)] + slot - base for storage, slot in pairs], np.int32)
                    extents = table.shape if groups is None else (len(table) // groups, groups)
                    buffers.append(Buffer("weights", blob.add(table), "int32", extents, _dense(extents)))
                case Picture(extents):
                    buffers.append(Buffer("input", 0, "uint8", extents, _dense(extents)))
                case Answer(extents):
                    buffers.append(Buffer("output", 0, "float32", extents, _dense(extents)))
        steps.append(Step(kernel_name(call.spec, machine), tuple(buffers), call.split, call.grain, call.label))
    scratch = max((call.scratch for call in calls), default=0)
    return steps, blob.content(), floats * 4 + 256, scratch * 4 + 4096 if scratch else 0


def _dense(extents: tuple[int, ...]) -> tuple[int, ...]:
    strides, stride = [], 1
    for extent in extents:
        strides.append(stride)
        stride *= extent
    return tuple(strides)
