"""Assembles a plan and its kernels into a Program; each operand gets a place in the arena or the weights blob."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smallcnn.compiler.build import kernel_name
from smallcnn.compiler.calls import Answer, Arena, Call, Constant, Picture, Table, Tensor
from smallcnn.compiler.layers import root
from smallcnn.compiler.memory import arrange
from smallcnn.compiler.program import Buffer, Program, Step
from smallcnn.compiler.targets import Target


class Blob:
    """Packed constants, each aligned to a cache line."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.known: dict[bytes, int] = {}

    def add(self, value: np.ndarray) -> int:
        """Adds a constant and returns its offset in bytes; equal constants are stored once."""
        content = np.ascontiguousarray(value).tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self.known:
            padding = -self.size % 64
            self.known[key] = self.size + padding
            self.parts += [bytes(padding), content]
            self.size += padding + len(content)
        return self.known[key]

    def content(self) -> bytes:
        """All bytes, padded for the last vector."""
        return b"".join(self.parts) + bytes(256)


def assemble(
    calls: Sequence[Call],
    kernels: Mapping[str, bytes],
    target: Target,
    name: str,
    metadata: dict[str, Any],
    input_shape: tuple[int, int, int],
    outputs: int,
) -> Program:
    """The program of a plan; `kernels` are the object files by kernel name."""
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
        kernel = kernel_name(call.spec, target.machine)
        steps.append(Step(kernel, tuple(buffers), call.split, call.grain, call.label))
    scratch = max((call.scratch for call in calls), default=0)
    return Program(
        name=name,
        target=target.name,
        features=target.features,
        objects=tuple(kernels.values()),
        steps=tuple(steps),
        arena_bytes=floats * 4 + 256,
        scratch_bytes=scratch * 4 + 4096 if scratch else 0,
        weights=blob.content(),
        metadata=metadata,
        input_shape=input_shape,
        outputs=outputs,
    )


def _dense(extents: tuple[int, ...]) -> tuple[int, ...]:
    strides, stride = [], 1
    for extent in extents:
        strides.append(stride)
        stride *= extent
    return tuple(strides)
