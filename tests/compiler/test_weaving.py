"""Rows of bytes are interleaved by one permutation, and nothing else changes."""

import re

import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from disassembled import disassembly, instructions, needs_objdump
from smallcnn.compiler import build, targets
from smallcnn.compiler.arithmetic import Bytes
from smallcnn.compiler.specs import Depthwise, Elementwise, Sink, Window
from smallcnn.compiler.weaving import permuted_at_once


def interleaved(result, lanes, low, high):
    order = ", ".join(f"i32 {i}, i32 {lanes + i}" for i in range(lanes))
    return f"  {result} = shufflevector <{lanes} x i8> {low}, <{lanes} x i8> {high}, <{2 * lanes} x i32> <{order}>\n"


def woven(first, second, third, fourth):
    pairs = interleaved("%even", 16, first, third) + interleaved("%odd", 16, second, fourth)
    return pairs + interleaved("%all", 32, "%even", "%odd")


@pytest.mark.parametrize("rows", ["abcc", "abcd", "aabc"])
def test_bytes_come_from_the_rows_in_turn(rows):
    """The written shuffles, applied to bytes that are called by their row and lane."""
    values = {f"%{row}": [f"{row}{lane}" for lane in range(16)] for row in rows} | {"poison": ["?"] * 16}
    code = permuted_at_once(woven(*(f"%{row}" for row in rows)))
    joined = re.findall(r"  (%woven\S+) = shufflevector <\d+ x i8> (\S+), <\d+ x i8> (\S+), <\d+ x i32> <(.*)>", code)
    for result, low, high, order in joined:
        both = values[low] + values[high]
        values[result] = [both[int(place)] for place in re.findall(r"i32 (\d+)", order)]
    ((source, order),) = re.findall(
        r'  %all = call <64 x i8> asm "vpermb .*"\(<64 x i8> (\S+), <64 x i8> <(.*)>\)', code
    )
    found = [values[source][int(place)] for place in re.findall(r"i8 (\d+)", order)]
    assert found == [f"{row}{lane}" for lane in range(16) for row in rows]


@pytest.mark.parametrize(
    "code",
    [
        woven("%a", "%b", "%a", "%b"),
        woven("%a", "%a", "%a", "%a"),
        interleaved("%even", 16, "%a", "%c") + interleaved("%all", 32, "%even", "%other"),
        woven("%a", "%b", "%c", "%c").replace("i32 7, i32 23", "i32 23, i32 7", 1),
        woven("%a", "%b", "%c", "%c").replace("  %all", "}\ndefine void @other() {\n  %all"),
    ],
)
def test_other_shuffles_stay(code):
    assert permuted_at_once(code) == code


@needs_objdump
@pytest.mark.parametrize("kernel", [3, 4])
def test_rows_lie_behind_one_another(kernel, tmp_path):
    """Nothing permutes two registers, which takes twice the time."""
    target, before = targets.parse("x86-64-linux-vnni"), (kernel // 2,) * 2
    size = 14 + 2 * before[0] - kernel + 1
    window = Window(14, 14, size, size, (kernel, kernel), (1, 1), before, before)
    spec = Depthwise(window, 64, Sink(64, 64, (Elementwise("requantize"),), number="uint8"), 7, bytes=Bytes(3))
    (tmp_path / "kernel.o").write_bytes(build.compile_kernel(spec, target.machine))
    found = instructions(disassembly(tmp_path / "kernel.o", target.name))
    assert "vpermb" in found
    assert not any(name.startswith(("vpermt2", "vpermi2")) for name in found)
