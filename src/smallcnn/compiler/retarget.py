"""Machine code for processors that Halide has no target for.

Halide knows dot products of bytes only as part of whole processors: its target avx512_zen4 makes LLVM use SSE4A too,
avx512_sapphirerapids FP16, and avxvnni alone does nothing. A program for such a target would fail on a processor with
AVX-512 VNNI that is not that one. So Halide writes LLVM's code, already optimised, and clang translates it for the
processor that is meant: LLVM then has no other instructions to choose from.
"""

import re
import tempfile
from pathlib import Path

from smallcnn.compiler import zig

_FLAGS = ("-c", "-O3", "-ffp-contract=off", "-ffunction-sections", "-Xclang", "-disable-llvm-passes")
"""As Halide translates: at the highest level; products and sums are fused where the code allows, not elsewhere."""


def to_object(code: str, cpu: str, features: str) -> bytes:
    """The object file of LLVM assembly made by Halide, for another processor of the same platform.

    Raises RuntimeError if the code asks for an instruction that the processor lacks, ValueError if it has no target.
    """
    found = re.search(r'^target triple = "([^"]+)"', code, re.MULTILINE)
    if not found:
        raise ValueError("the code names no target")
    for name, value in (("target-cpu", cpu), ("tune-cpu", cpu), ("target-features", features)):
        code = re.sub(f'"{name}"="[^"]*"', f'"{name}"="{value}"', code)
    triple = found[1]
    independent = () if "windows" in triple else ("-fPIC",)
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as folder:
        source, out = Path(folder) / "kernel.ll", Path(folder) / "kernel.o"
        source.write_text(code)
        zig.run("clang", "-target", triple, *_FLAGS, *independent, source, "-o", out)
        return out.read_bytes()
