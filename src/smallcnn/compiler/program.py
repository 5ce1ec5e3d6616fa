"""The planner's result for the linker: machine code, the order of its calls, and the place of every value.

    Program = objects (kernels)  +  steps (kernel, buffers, how threads share it)  +  weights  +  metadata

A kernel is a Halide function compiled with `Target.halide`; it is called through `<kernel>_argv`, with the context in
front of the buffers. Kernels take intermediates from the calling thread's scratch through halide_malloc.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from smallcnn.ir.types import SIZES, Number, Tensor

Space = Literal["arena", "weights", "input", "output"]


@dataclass(frozen=True)
class Buffer:
    """A view of one space: element i, j, ... is at `offset` bytes + (i, j, ...) . `strides` elements.

    Dimension 0 is the innermost. Arena and weights start on a 64-byte boundary; input and outputs anywhere. `output` is
    the position of an output among the program's.
    """

    space: Space
    offset: int
    type: Number
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    output: int = 0

    @property
    def end(self) -> int:
        """Bytes from the start of the space to the end of the last element."""
        last = sum((extent - 1) * stride for extent, stride in zip(self.extents, self.strides, strict=True))
        return self.offset + (last + 1) * SIZES[self.type]


@dataclass(frozen=True)
class Step:
    """One call of a kernel. `buffers` are in argument order, the last one is the output.

    Threads split the dimension `split` of the output in multiples of `grain`; the last takes the rest. With `split`
    None one thread runs the step while the others wait. `label` names the graph's nodes, for timings.
    """

    kernel: str
    buffers: tuple[Buffer, ...]
    split: int | None
    grain: int
    label: str


@dataclass(frozen=True)
class Program:
    """Everything in a compiled file. `target` is a name for `targets.parse`; `features` are what it needs.

    `scratch_bytes` is per thread; each block that a kernel takes from it costs its size rounded up to 64 bytes, and 64
    more. `input_shape` is (H, W, C) of the uint8 image; `outputs` are what the network gives, by name. `most` is
    the largest number of objects that it finds, 0 if it is no detector.
    """

    name: str
    target: str
    features: tuple[str, ...]
    objects: tuple[bytes, ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    scratch_bytes: int
    weights: bytes
    metadata: dict[str, Any]
    input_shape: tuple[int, int, int]
    outputs: Mapping[str, Tensor]
    most: int = 0

    def __post_init__(self) -> None:
        height, width, channels = self.input_shape
        sizes = {"arena": self.arena_bytes, "weights": len(self.weights), "input": height * width * channels}
        outputs = [tensor.bytes for tensor in self.outputs.values()]
        for step in self.steps:
            for buffer in step.buffers:
                size = outputs[buffer.output] if buffer.space == "output" else sizes[buffer.space]
                if buffer.offset < 0 or buffer.end > size or min(buffer.strides, default=0) < 0:
                    raise ValueError(f"{step.label}: {buffer} is not within the {size} bytes of its space")
            output = step.buffers[-1]
            if output.space not in ("arena", "output"):
                raise ValueError(f"{step.label}: its output is in the {output.space}")
            if step.split is not None and not (0 <= step.split < len(output.extents) and step.grain >= 1):
                raise ValueError(f"{step.label}: cannot split dimension {step.split} of {output.extents}")
