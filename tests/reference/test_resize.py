"""The definition of `Resize`, against ONNX Runtime in every form, PyTorch, and numbers by hand."""

from fractions import Fraction
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from smallcnn.ir import ops
from smallcnn.reference import floating as reference

PLANES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SIDES = [(1, 1), (1, 4), (4, 1), (5, 10), (10, 5), (3, 9), (5, 7), (7, 5), (6, 14), (8, 5), (13, 13)]


def resized(x, **how):
    (height, width) = how.pop("size")
    return reference.apply(ops.Resize(height=height, width=width, **how), [x], {})


def in_onnx_runtime(x, op):
    """Its answer for images (N, H, W, C)."""
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], coordinate_transformation_mode=op.coordinates,
        mode={"nearest": "nearest", "bilinear": "linear"}[op.mode], nearest_mode=op.rounding,
    )  # fmt: skip
    sizes = numpy_helper.from_array(np.array([len(x), x.shape[3], op.height, op.width]), "sizes")
    graph = helper.make_graph(
        [node], "resize", [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [sizes],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("coordinates", get_args(ops.Coordinates))
@pytest.mark.parametrize("mode", ["bilinear", *get_args(ops.Rounding)])
def test_every_form_is_onnx_runtimes(coordinates, mode):
    """Its positions are float32; a bilinear one is off by 14 * 2^-23 at most, times differences near 4."""
    how = {"mode": "bilinear"} if mode == "bilinear" else {"mode": "nearest", "rounding": mode}
    for i, (height, after_h) in enumerate(SIDES):
        width, after_w = SIDES[(i + 4) % len(SIDES)]
        x = np.random.default_rng(i).standard_normal((2, height, width, 3), np.float32)
        op = ops.Resize(height=after_h, width=after_w, coordinates=coordinates, **how)
        got = reference.apply(op, [x.astype(np.float64)], {})
        np.testing.assert_allclose(got, in_onnx_runtime(x, op), rtol=0, atol=1e-5 if mode == "bilinear" else 0)


@given(PLANES, PLANES, st.booleans())
def test_bilinear_is_pytorchs(before, size, align):
    """PyTorch's float64 positions differ from the exact ones by a few 2^-53."""
    x = np.random.default_rng(sum(before)).standard_normal((2, *before, 3))
    want = F.interpolate(torch.from_numpy(x).movedim(-1, 1), size, mode="bilinear", align_corners=align)
    got = resized(x, size=size, mode="bilinear", coordinates="align_corners" if align else "half_pixel")
    np.testing.assert_allclose(got, want.movedim(1, -1).numpy(), rtol=0, atol=1e-13)


@given(PLANES, PLANES)
def test_nearest_is_pytorchs(before, size):
    """But where a position is so near to a whole number that PyTorch's float32 scale decides."""
    assume(all(_clear(*side) for side in zip(before, size, strict=True)))
    x = np.random.default_rng(sum(before)).standard_normal((2, *before, 3))
    first = torch.from_numpy(x).movedim(-1, 1)
    for mode, how in (
        ("nearest", {"coordinates": "asymmetric"}),
        ("nearest-exact", {"coordinates": "half_pixel", "rounding": "round_prefer_ceil"}),
    ):
        want = F.interpolate(first, size, mode=mode).movedim(1, -1).numpy()
        np.testing.assert_array_equal(resized(x, size=size, mode="nearest", **how), want)


def _clear(before, after):
    """Whether no pixel's position is whole although the scale has no exact float32."""
    scale = Fraction(before, after)
    exact = Fraction(float(np.float32(float(scale)))) == scale
    places = [at * scale for i in range(1, after) for at in (i, i + Fraction(1, 2))]
    return exact or all(place.denominator > 1 for place in places)


def test_doubling_repeats_pixels():
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 2))
    want = x.repeat(2, 1).repeat(3, 2)
    for how in ({"coordinates": "asymmetric"}, {"rounding": "round_prefer_floor"}, {"rounding": "round_prefer_ceil"}):
        np.testing.assert_array_equal(resized(x, size=(6, 12), mode="nearest", **how), want)


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ({"mode": "bilinear"}, [0, 2.5, 7.5, 10]),  # positions -1/4, 1/4, 3/4, 5/4 of pixels 0 and 10
        ({"mode": "bilinear", "coordinates": "align_corners"}, [0, 10 / 3, 20 / 3, 10]),
        ({"mode": "bilinear", "coordinates": "asymmetric"}, [0, 5, 10, 10]),
        ({"mode": "nearest", "coordinates": "asymmetric", "rounding": "round_prefer_floor"}, [0, 0, 10, 10]),
        ({"mode": "nearest", "coordinates": "asymmetric", "rounding": "round_prefer_ceil"}, [0, 10, 10, 10]),
        ({"mode": "nearest", "coordinates": "asymmetric", "rounding": "ceil"}, [0, 10, 10, 10]),
        ({"mode": "nearest", "coordinates": "half_pixel", "rounding": "floor"}, [0, 0, 0, 10]),
    ],
)
def test_two_pixels_become_four(how, want):
    got = resized(np.array([0.0, 10.0]).reshape(1, 1, 2, 1), size=(1, 4), **how)
    np.testing.assert_allclose(got.ravel(), want, rtol=1e-15)


def test_one_pixel_is_the_middle_or_the_first():
    x = np.array([0.0, 1.0, 5.0, 9.0]).reshape(1, 1, 4, 1)
    for coordinates, want in (("half_pixel", 3), ("pytorch_half_pixel", 0), ("align_corners", 0), ("asymmetric", 0)):
        assert resized(x, size=(1, 1), mode="bilinear", coordinates=coordinates).item() == want


def test_positions_are_exact():
    """Pixel 7 of 14 is at 7 * 6 / 14 = 3, which is 2.9999998 with a float32 scale: nearest must be 3."""
    op = ops.Resize(height=1, width=14, mode="nearest", coordinates="asymmetric")
    assert op.taps(6, 14)[7] == (3, 3, 0.0)
    for before in range(1, 60):
        for after in (3 * before, 7 * before):
            assert [low for low, _, _ in op.taps(before, after)] == [i * before // after for i in range(after)]
