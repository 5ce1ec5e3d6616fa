"""Sums clamped to a byte are packed several vectors at a time, and nothing else changes."""

import re

import numpy as np
import pytest

from smallcnn.compiler.narrowing import packed_together

LEAST = "%a = tail call <{0} x i32> @llvm.smax.v{0}i32(<{0} x i32> %x, <{0} x i32> {1})"
MOST = "%b = tail call <{0} x i32> @llvm.umin.v{0}i32(<{0} x i32> %a, <{0} x i32> splat (i32 {1}))"
NARROWED = "%c = trunc nuw <{0} x i32> %b to <{0} x i8>"


def body(*lines):
    return "\n".join(f"  {line}" for line in lines) + "\n"


def clamped(lanes, least="zeroinitializer", most=255):
    return body(LEAST.format(lanes, least), MOST.format(lanes, most), NARROWED.format(lanes))


def places(line):
    return [int(number) for number in re.findall(r"i32 (\d+)", line.rpartition("> <")[2])]


def quarters(low, high):
    """What packing two registers gives: of each quarter, the numbers of the first and then of the second."""
    return np.concatenate([low.reshape(4, -1), high.reshape(4, -1)], axis=1).reshape(-1)


@pytest.mark.parametrize("lanes", [32, 64])
def test_every_lane_ends_where_it_was(lanes):
    """The written shuffles, applied to the numbers of the lanes around the packing instructions' definition."""
    *_, first, second = code = packed_together(clamped(lanes)).splitlines()
    assert "packssdw" in first
    assert "packuswb" in second
    vectors = [np.array(places(line)) for line in code if re.match(r"  %packed.c.\d = ", line)]
    assert len(vectors) == lanes // 16
    words = [quarters(vectors[i], vectors[i + 1]) for i in range(0, len(vectors), 2)]
    fours = quarters(words[0], words[-1]).reshape(16, 4)
    (order,) = (places(line) for line in code if "%packed.c.order = " in line)
    assert fours[order].reshape(-1).tolist() == list(range(lanes))
    assert code[:2] == clamped(lanes).splitlines()[:2]  # LLVM drops what nobody reads
    assert f"  %c = bitcast <{lanes // 4} x i32> %packed.c.order to <{lanes} x i8>" in code


@pytest.mark.parametrize(
    "code",
    [
        clamped(16),
        clamped(64, least="splat (i32 -5)"),
        clamped(64, most=127),
        body(LEAST.format(64, "zeroinitializer"), "%c = trunc nuw <64 x i32> %a to <64 x i8>"),
        clamped(64).replace("  %c", "}\ndefine void @other() {\n  %c"),
    ],
)
def test_other_numbers_stay(code):
    assert packed_together(code) == code
