"""How a machine computes: registers of floats, products of bytes, rounding."""

from dataclasses import dataclass

from smallcnn.compiler.storage import up
from smallcnn.ir.types import Number

MAGIC_BITS = 0x4B400000
"""The bits of 1.5 * 2**23 as float32, whose unit is 1."""
RUN = 8
"""Bytes that are converted at once where a table says where they lie."""


@dataclass(frozen=True)
class Dots:
    """How kernels get dot products of bytes on a machine that Halide has no target for.

    `target` is a target of Halide with these instructions and with others, which the machine may lack; `cpu` and
    `features` say in LLVM's words what the code is for instead.
    """

    target: str
    cpu: str
    features: str


@dataclass(frozen=True)
class Machine:
    """The machine to generate code for: floats per vector register, number of registers, Halide's target.

    `dot` is how many products of bytes one instruction adds to a sum: 4; where bytes are widened to 16 bits, 2 or 1.
    Kernels with int8 weights use `dots` if there are any.
    """

    vector: int
    registers: int
    target: str
    dot: int = 2
    dots: Dots | None = None

    @property
    def prefetches(self) -> bool:
        """Whether kernels may fetch weights before they read them, and compute 3x3 convolutions by minimal filtering.
        Measured on a Zen 4 only."""
        return self.target.startswith("x86-64")

    @property
    def rounds(self) -> bool:
        """Whether one instruction rounds floats to whole numbers (`rounding`)."""
        return self.target.startswith("x86-64")


@dataclass(frozen=True)
class Bytes:
    """How a kernel computes with bytes: `zero` stands for 0 in the source, `weight_zero` in weights of `weight`."""

    zero: int
    weight: Number = "int8"
    weight_zero: int = 0

    def dot(self, machine: Machine) -> int:
        """Products that one instruction adds; where the weights' zero is subtracted first, they have 16 bits."""
        return min(machine.dot, 2) if self.weight_zero else machine.dot

    def runs(self, machine: Machine) -> tuple[int, ...]:
        """Neighbouring lanes that may be read at once through a table: those of a product; half a vector of bytes that
        are converted first."""
        dot = self.dot(machine)
        return (RUN, dot) if self.converted(1, machine) else (dot,)

    def lowered(self, machine: Machine) -> int:
        """What is subtracted from the source's bytes before they are multiplied: 128 for ARM's dot product, of int8."""
        return 128 if self.dot(machine) == 4 and not machine.dots else 0

    def size(self, machine: Machine) -> int:
        """Bytes of a byte of the source, as it is multiplied."""
        return 2 if self.dot(machine) <= 2 else 1

    def converted(self, depth: int, machine: Machine) -> int:
        """Lanes of a pixel that are converted before they are multiplied, in whole vectors; 0 where none need be."""
        dot = self.dot(machine)
        needed = dot <= 2 or self.lowered(machine)
        return up(depth, max(dot, 2) * machine.vector) if needed else 0


def depth_of(channels: int, of: Bytes | None, machine: Machine) -> int:
    """Lanes that a sum over channels reads: of bytes, whole groups of them; weights beyond the channels are zero."""
    return up(channels, of.dot(machine)) if of else channels
