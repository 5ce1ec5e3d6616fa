"""Machine code from LLVM's assembly, for processors that Halide has no target for and for code that was changed.

Halide knows dot products of bytes only as part of whole processors: its target avx512_zen4 makes LLVM use SSE4A too,
avx512_sapphirerapids FP16, and avxvnni alone does nothing. A program for such a target would fail on a processor with
AVX-512 VNNI that is not that one. So Halide writes LLVM's code, already optimised, and clang translates it for the
processor that is meant: LLVM then has no other instructions to choose from.
"""

import re
import tempfile
from pathlib import Path

from smallcnn.compiler import zig
from smallcnn.compiler.arithmetic import Dots

_FLAGS = ("-c", "-O3", "-ffp-contract=off", "-ffunction-sections", "-Xclang", "-disable-llvm-passes")
"""As Halide translates: at the highest level; products and sums are fused where the code allows, not elsewhere."""
UNCOMBINED = "-x86-machine-combiner=false"
"""LLVM's machine combiner adds products of bytes to each other before it adds them to their sum, for which a tile has
no registers: sums go through the stack, and at unlucky addresses take twice the time."""


def to_object(code: str, dots: Dots | None = None) -> bytes:
    """The object file of LLVM assembly made by Halide; with `dots` for that processor of the same platform.

    Raises RuntimeError if the code asks for an instruction that the processor lacks, ValueError if it has no target.
    """
    found = re.search(r'^target triple = "([^"]+)"', code, re.MULTILINE)
    if not found:
        raise ValueError("the code names no target")
    named = (("target-cpu", dots.cpu), ("tune-cpu", dots.cpu), ("target-features", dots.features)) if dots else ()
    for name, value in named:
        code = re.sub(f'"{name}"="[^"]*"', f'"{name}"="{value}"', code)
    triple = found[1]
    flags = (*_FLAGS, *(() if "windows" in triple else ("-fPIC",)), *(() if dots else ("-mllvm", UNCOMBINED)))
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as folder:
        source, out = Path(folder) / "kernel.ll", Path(folder) / "kernel.o"
        source.write_text(code)
        zig.run("clang", "-target", triple, *flags, source, "-o", out)
        return out.read_bytes()
