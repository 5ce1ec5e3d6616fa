"""Conversions of rounded floats become one instruction, and nothing else changes."""

import re

import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from disassembled import disassembly, instructions, needs_objdump
from smallcnn.compiler import build, targets
from smallcnn.compiler.arithmetic import Bytes
from smallcnn.compiler.rounding import rounded_at_once
from smallcnn.compiler.specs import Elementwise, Pointwise, Sink, Source, Tile

ROUND = "tail call <8 x float> @llvm.x86.avx.round.ps.256(<8 x float> %{}, i32 {}) #6"


def body(*lines):
    return "\n".join(f"  {line}" for line in lines) + "\n"


def test_halves_joined_before_their_conversion_are_rounded_by_it():
    join = "%c = shufflevector <8 x float> %a, <8 x float> %b, <16 x i32> zeroinitializer"
    code = body(
        f"%a = {ROUND.format('x', 0)}",
        f"%b = {ROUND.format('y', 0)}",
        join,
        "%d = fptosi <16 x float> %c to <16 x i32>",
    )
    assert rounded_at_once(code) == (
        body(
            "%a = bitcast <8 x float> %x to <8 x float>",
            "%b = bitcast <8 x float> %y to <8 x float>",
            join,
            "%d = tail call <16 x i32> @llvm.lrint.v16i32.v16f32(<16 x float> %c)",
        )
        + "declare <16 x i32> @llvm.lrint.v16i32.v16f32(<16 x float>)\n"
    )


def test_what_is_read_as_a_float_too_stays_rounded():
    code = body(
        f"%a = {ROUND.format('x', 0)}",
        "%d = fptosi <8 x float> %a to <8 x i32>",
        "store <8 x float> %a, ptr %p, align 4",
    )
    assert ROUND.format("x", 0) in rounded_at_once(code)
    assert "llvm.lrint.v8i32.v8f32(<8 x float> %a)" in rounded_at_once(code)


@pytest.mark.parametrize(
    "lines",
    [
        ("%d = fptosi <8 x float> %x to <8 x i32>",),  # truncates
        (f"%a = {ROUND.format('x', 1)}", "%d = fptosi <8 x float> %a to <8 x i32>"),  # rounds down
        (
            f"%a = {ROUND.format('x', 0)}",
            "%c = shufflevector <8 x float> %a, <8 x float> %y, <16 x i32> zeroinitializer",
            "%d = fptosi <16 x float> %c to <16 x i32>",
        ),
        (f"%a = {ROUND.format('x', 0)}", "%d = fptosi <8 x float> %a to <8 x i8>"),
        (f"%a = {ROUND.format('x', 0)}", "%d = fadd <8 x float> %a, %a"),
    ],
)
def test_other_conversions_stay(lines):
    assert rounded_at_once(body(*lines)) == body(*lines)


@needs_objdump
@pytest.mark.parametrize("vectors", [2, 3, 4])
@pytest.mark.parametrize("level", ["sse41", "avx2", "avxvnni", "avx512", "vnni"])
def test_sums_become_bytes_without_other_steps(level, vectors, tmp_path):
    """One conversion there, one product, one conversion back for each vector, and packing that saturates."""
    target = targets.parse(f"x86-64-linux-{level}")
    lanes = vectors * target.vector
    spec = Pointwise(
        Source(64, 64), Sink(lanes, lanes, (Elementwise("rescale"),), number="uint8"), Tile(2, vectors), Bytes(3)
    )
    (tmp_path / "kernel.o").write_bytes(build.compile_kernel(spec, target.machine))
    found = [name.removeprefix("v") for name in instructions(disassembly(tmp_path / "kernel.o", target.name))]
    assert found.count("cvtdq2ps") == found.count("mulps") == found.count("cvtps2dq") == 2 * vectors
    assert not re.search(r"round|rndscale|cvttps2dq|addps|psubd", " ".join(found))
    if vectors % 2 == 0:
        assert found.count("packssdw") == vectors
        assert found.count("packuswb") == (2 if vectors == 2 else vectors // 2)
        assert not {"pmaxsd", "pminsd", "pminud", "pmovusdb"} & set(found)
