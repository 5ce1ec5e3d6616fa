"""How a machine computes: registers of floats, products of bytes, rounding."""

from dataclasses import dataclass

from smallcnn.compiler.storage import up

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

    @property
    def packs(self) -> bool:
        """Whether instructions pack two vectors of whole numbers into one, with saturation."""
        return not self.target.startswith("arm")

    @property
    def packs_quarters(self) -> bool:
        """Whether they do so in quarters of an AVX-512 register (`narrowing`)."""
        return self.vector == 16

    @property
    def permutes_bytes(self) -> bool:
        """Whether one instruction puts the bytes of a register into any order (`weaving`)."""
        return self.dots is not None and "avx512vbmi" in self.dots.features

    @property
    def lowered(self) -> int:
        """What is subtracted from a source's bytes before they are multiplied: 128 for ARM's dot product, of int8."""
        return 128 if self.dot == 4 and not self.dots else 0

    @property
    def converts(self) -> bool:
        """Whether a product has to convert its source's bytes, unless the kernel's stage before it did."""
        return self.dot <= 2 or self.lowered > 0

    @property
    def byte_size(self) -> int:
        """Bytes of a byte of a source, as it is multiplied."""
        return 2 if self.dot <= 2 else 1

    def converted(self, depth: int) -> int:
        """Lanes of a pixel that are converted before they are multiplied, in whole vectors; 0 where none need be."""
        return up(depth, max(self.dot, 2) * self.vector) if self.converts else 0

    @property
    def runs(self) -> tuple[int, ...]:
        """Neighbouring bytes that may be read at once through a table: those of a product; half a vector of those that
        are converted first."""
        return (RUN, self.dot) if self.converts else (self.dot,)


@dataclass(frozen=True)
class Bytes:
    """How a kernel computes with bytes: `zero` stands for 0 in the source, `weight_zero` in the weights, of int8."""

    zero: int
    weight_zero: int = 0

    def summed(self, machine: Machine) -> bool:
        """Whether a kernel also adds up the source's bytes: each product has its weight's zero times its byte too much.
        Weights that are widened to 16 bits lose their zero then."""
        return machine.dot > 2 and self.weight_zero != 0


def depth_of(channels: int, of: Bytes | None, machine: Machine) -> int:
    """Lanes that a sum over channels reads: of bytes, whole groups of them; weights beyond the channels are zero."""
    return up(channels, machine.dot) if of else channels
