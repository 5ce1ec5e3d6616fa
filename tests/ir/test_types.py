import struct
from dataclasses import FrozenInstanceError
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallcnn.errors import GraphError
from smallcnn.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    Dense,
    Dequantize,
    Flatten,
    GlobalPool,
    Op,
    Pad,
    Pool,
    Quantize,
    Scale,
    from_json,
)
from smallcnn.ir.types import NUMBERS, RANGES, SIZES, Grid, Tensor

GRID = Grid((0.5,), (3,))
TWO, QUARTER = Grid((0.25, 0.5), (0, 0)), Grid((0.25,), (0,))
BYTES = Tensor((4, 4, 2), "uint8", GRID)
MAX = Pool(function="max", kernel=(2, 2), stride=(2, 2))


@pytest.mark.parametrize("number", NUMBERS)
def test_sizes_and_ranges_are_numpys(number):
    assert SIZES[number] == np.dtype(number).itemsize
    if number in RANGES:
        info = np.iinfo(number)
        assert RANGES[number] == (info.min, info.max)
    assert Tensor((3, 5, 7), number).bytes == np.zeros((3, 5, 7), number).nbytes


@given(st.floats(2.0**-126, 2.0**127))
def test_a_scale_is_the_nearest_number_of_float32(scale):
    assert Grid((scale,), (0,)).scale == (float(np.float32(scale)),)
    assert Grid((scale,), (0,)) == Grid((struct.unpack("<f", struct.pack("<f", scale))[0],), (0,))


@pytest.mark.parametrize(
    ("scale", "zero", "message"),
    [
        ((), (), "a grid needs tuples of scales and zeros"),
        ([0.5], [0], "a grid needs tuples of scales and zeros"),
        ((0.5, 0.5), (0,), "2 scales for 1 zeros"),
        ((0.0,), (0,), "a scale must be a number above 0, not 0.0"),
        ((-0.5,), (0,), "a scale must be a number above 0, not -0.5"),
        ((nan,), (0,), "a scale must be a number above 0, not nan"),
        ((inf,), (0,), "a scale must be a number above 0, not inf"),
        ((True,), (0,), "a scale must be a number above 0, not True"),
        (("1",), (0,), "a scale must be a number above 0, not '1'"),
        ((1e-40,), (0,), r"a scale must be from 1.18e-38 to 3.4e\+38, not 1e-40"),  # subnormal: some machines flush it
        ((1e39,), (0,), r"a scale must be from 1.18e-38 to 3.4e\+38, not 1e\+39"),
    ],
)  # fmt: skip
def test_grids_that_cannot_be(scale, zero, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        Grid(scale, zero)


def test_a_grid_is_a_value():
    with pytest.raises(FrozenInstanceError):
        GRID.zero = (0,)
    assert len({GRID, Grid((0.5,), (3,)), Grid((0.5,), (4,))}) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantize(number="int32", grid=GRID), "no number type 'int32'; "),
        (lambda: Quantize(number="float32", grid=GRID), "no number type 'float32'; "),
        (lambda: Quantize(number="uint8", grid=Grid((1.0,), (256,))), "a zero of uint8 must be a whole number from 0 "),
        (lambda: Quantize(number="int8", grid=Grid((1.0,), (-129,))), "a zero of int8 must be .* from -128 to 127"),
        (lambda: Quantize(number="int8", grid=Grid((1.0,), (0.0,))), "a zero of int8 must be .*, not 0.0"),
        (lambda: Quantize(number="int8", grid=Grid((1.0, 1.0), (0, 0))), "a grid of 2 entries; 1 are allowed"),
        (lambda: Conv(out=3, number="int8"), "weights of int8 need a grid"),
        (lambda: Conv(out=3, grid=GRID), "a grid is for uint8, int8, int32, not for 'float32'"),
        (lambda: Conv(out=3, number="int8", grid=Grid((1.0,) * 2, (0,) * 2)), "a grid of 2 entries; 1 or 3 are "),
        (lambda: Dense(out=3, number="int4", grid=GRID), "no number type 'int4'; closest: "),
        (lambda: from_json({"op": "dequantize", "grid": {}}), "dequantize has no attribute 'grid'"),
        (lambda: from_json({"op": "quantize", "number": "int8", "grid": [1, 2]}), "a grid needs scale and zero, not"),
        (lambda: from_json({"op": "quantize", "number": "int8"}), "quantize lacks grid"),
    ],
)  # fmt: skip
def test_operators_check_their_grids(make, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("op", "inputs", "want"),
    [
        (Quantize(number="int8", grid=GRID), [Tensor((3, 2, 1))], Tensor((3, 2, 1), "int8", GRID)),
        (Dequantize(), [BYTES], Tensor((4, 4, 2))),
        (Flatten(), [BYTES], Tensor((32,), "uint8", GRID)),
        (Concat(), [BYTES, BYTES], Tensor((4, 4, 4), "uint8", GRID)),
        (Pad(padding=((1, 0), (0, 1))), [BYTES], Tensor((5, 5, 2), "uint8", GRID)),
        (MAX, [BYTES], Tensor((2, 2, 2), "uint8", GRID)),
        (Dense(out=3, number="int8", grid=GRID), [Tensor((4,))], Tensor((3,))),
        (Conv(out=2, number="int8", grid=TWO), [BYTES], Tensor((4, 4, 2), "int32", Grid((0.125, 0.25), (0, 0)))),
        (Dense(out=2, number="int8", grid=GRID), [Tensor((4,), "int8", GRID)], Tensor((2,), "int32", QUARTER)),
        (Quantize(number="uint8", grid=GRID), [Tensor((2,), "int32", QUARTER)], Tensor((2,), "uint8", GRID)),
        (Dequantize(), [Tensor((2,), "int32", TWO)], Tensor((2,))),
        (Activation(function="relu6"), [BYTES], BYTES),
        (Clip(low=-1, high=1), [BYTES], BYTES),
        (Activation(function="hard_swish"), [BYTES], Tensor((4, 4, 2))),
        (Add(), [BYTES, BYTES], Tensor((4, 4, 2))),
        (Scale(), [BYTES, Tensor((2,), "uint8", GRID)], Tensor((4, 4, 2), "int32", QUARTER)),
        (GlobalPool(), [BYTES], Tensor((2,), "int32", Grid((0.03125,), (0,)))),
        (Pool(function="average", kernel=(2, 2), stride=(2, 2)), [BYTES], Tensor((2, 2, 2))),
    ],
    ids=str,
)
def test_number_types_of_results(op, inputs, want):
    assert op.output(*inputs) == want


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Conv(out=2), [BYTES], "weights of float32 need float32, not uint8; a dequantize must come first"),
        (BatchNorm(), [BYTES], "needs float32, not uint8; a dequantize must come first"),
        (
            GlobalPool(),
            [Tensor((4, 4, 2), "int32", GRID)],
            "needs bytes on a grid, not int32; a quantize must come fir",
        ),
        (Add(), [BYTES, Tensor((4, 4, 2))], "needs bytes on a grid, not float32, as its other inputs are bytes"),
        (Quantize(number="int8", grid=GRID), [BYTES], "needs float32, not uint8"),
        (Dequantize(), [Tensor((4,))], "needs numbers on a grid, not float32"),
        (Concat(), [BYTES, Tensor((4, 4, 2))], "joins float32 and uint8 of different grids"),
        (Concat(), [BYTES, Tensor((4, 4, 2), "uint8", Grid((0.5,), (4,)))], "joins uint8 of different grids"),
    ],
    ids=str,
)
def test_number_types_that_do_not_fit(op: Op, inputs, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        op.output(*inputs)
