"""Assembles a plan and its kernels into a Program; each operand gets a place in the arena or the weights blob."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smallcnn.compiler.build import kernel_name
from smallcnn.compiler.calls import Call
from smallcnn.compiler.memory import arrange
from smallcnn.compiler.operands import Answer, Arena, Constant, InputImage, Map, Table
from smallcnn.compiler.program import Buffer, Program, Step
from smallcnn.compiler.scratch import scratch_bytes
from smallcnn.compiler.specs import Detect
from smallcnn.compiler.storage import Storage, View
from smallcnn.compiler.targets import Target
from smallcnn.ir.types import SIZES, Number, Tensor


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
    outputs: Mapping[str, Tensor],
) -> Program:
    """The program of a plan; `kernels` are the object files by kernel name."""
    return assemble_all([calls], kernels, target, name, metadata, input_shape, outputs)


def assemble_all(
    plans: Sequence[Sequence[Call]],
    kernels: Mapping[str, bytes],
    target: Target,
    name: str,
    metadata: dict[str, Any],
    input_shape: tuple[int, int, int],
    outputs: Mapping[str, Tensor],
) -> Program:
    """The program of several plans, which run one after the other in one arena and share equal weights."""
    blob, steps, arena_bytes = Blob(), [], 0
    for calls in plans:
        places, needed = arrange(calls)
        arena_bytes = max(arena_bytes, needed)
        for call in calls:
            kernel = kernel_name(call.spec, target.machine)
            steps.append(Step(kernel, _buffers(call, places, blob), call.split, call.grain, call.label))
    scratch = max((scratch_bytes(call.spec, target.machine) for calls in plans for call in calls), default=0)
    return Program(
        name=name,
        target=target.name,
        features=target.features,
        objects=tuple(kernels.values()),
        steps=tuple(steps),
        arena_bytes=arena_bytes + 256,
        scratch_bytes=scratch + 4096 if scratch else 0,
        weights=blob.content(),
        metadata=metadata,
        input_shape=input_shape,
        outputs=outputs,
        most=min((call.spec.most for calls in plans for call in calls if isinstance(call.spec, Detect)), default=0),
    )


def _buffers(call: Call, places: Mapping[Storage, int], blob: Blob) -> tuple[Buffer, ...]:
    """The operands of a call, each in its place."""
    buffers, base = [], 0
    for operand in call.operands:
        match operand:
            case Map(storage, first, extents, strides):
                offset = places[storage.root] + first * SIZES[storage.number]
                buffers.append(Buffer("arena", offset, storage.number, extents, strides))
            case Constant(pack):
                kept = pack()
                number: Number = "float32" if np.issubdtype(kept.dtype, np.floating) else str(kept.dtype)  # type: ignore[assignment]
                extents = kept.shape[::-1]
                buffers.append(Buffer("weights", blob.add(kept.astype(number)), number, extents, _dense(extents)))
            case Arena(view, pixels):
                base = min(places[storage.root] for storage in view.storages)
                lanes = max(_lanes(view, places, base))
                pitch = view.storages[0].pitch
                strides = (1, pitch) if len(pixels) == 1 else (1, pitch, pitch * pixels[0])
                buffers.append(Buffer("arena", base, view.number, (lanes + 1, *pixels), strides))
            case Table(view, groups, depth):
                table = np.array(_lanes(view, places, base), np.int32)
                if groups is not None:
                    table = table.reshape(groups, -1)
                    table = np.hstack([table, table[:, :1].repeat(max(depth - table.shape[1], 0), 1)])
                extents = table.shape[::-1]
                buffers.append(Buffer("weights", blob.add(table), "int32", extents, _dense(extents)))
            case InputImage(extents):
                buffers.append(Buffer("input", 0, "uint8", extents, _dense(extents)))
            case Answer(index, extents, number):
                buffers.append(Buffer("output", 0, number, extents, _dense(extents), index))
    return tuple(buffers)


def _lanes(view: View, places: Mapping[Storage, int], base: int) -> list[int]:
    """Where each channel lies, in numbers from byte `base` of the arena on."""
    size = SIZES[view.number]
    return [(places[s.root] - base) // size + slot for s, slot in zip(view.storages, view.slots, strict=True)]


def _dense(extents: tuple[int, ...]) -> tuple[int, ...]:
    strides, stride = [], 1
    for extent in extents:
        strides.append(stride)
        stride *= extent
    return tuple(strides)
