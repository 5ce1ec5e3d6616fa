"""Maps of other sizes, learned slopes, exp and differences, as other writers spell them; ONNX Runtime is the judge."""

import numpy as np
import pytest

from onnx_files import STEM, STORED, checked, head, kinds, made, node, random
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.onnx import from_onnx

SHAPE = [1, 3, 5, 6]


def model(*nodes, stored=None, **options):
    """The head is spelled as every operator set has it."""
    ends = [*head()[:2], node("MatMul", "flat turned", "y")]
    return made([STEM, *nodes, *ends], SHAPE, STORED | {"turned": STORED["dense"].T} | (stored or {}), **options)


def resize(inputs="s", *, stored, opset=17, kind="Resize", **attributes):
    """A resize of (1, 4, 5, 6); an input "-" is left out."""
    it = node(kind, inputs, "m", **attributes)
    it.input[:] = ["" if name == "-" else name for name in it.input]
    return model(it, stored={name: np.asarray(value) for name, value in stored.items()}, opset=opset)


def found(it):
    (op,) = [n.op for n in checked(it, SHAPE) if isinstance(n.op, ops.Resize)]
    return op


F = np.float32
SIZES = {"sizes": np.array([1, 4, 10, 3])}
SCALES = {"scales": np.array([1, 1, 2, 1.5], F)}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
)
def test_sizes_and_scales(mode, coordinates):
    how = {"mode": mode, "coordinate_transformation_mode": coordinates, "cubic_coeff_a": -0.75}
    opset = 19 if coordinates == "half_pixel_symmetric" else 17
    op = found(resize("s - - sizes", stored=SIZES, opset=opset, **how))
    assert (op.height, op.width, op.mode) == (10, 3, {"nearest": "nearest", "linear": "bilinear"}[mode])
    assert op.coordinates == coordinates.removesuffix("_symmetric")
    op = found(resize("s roi scales", stored={"roi": np.array([], F)} | SCALES, opset=opset, **how))
    assert (op.height, op.width) == (10, 9)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_roundings(rounding):
    how = {"mode": "nearest", "nearest_mode": rounding}
    assert found(resize("s - - sizes", stored=SIZES, **how)).rounding == rounding
    assert found(resize("s - scales", stored=SCALES, coordinate_transformation_mode="asymmetric", **how)).rounding


def test_the_defaults():
    assert found(resize("s - scales", stored=SCALES)) == ops.Resize(
        height=10, width=9, mode="nearest", coordinates="half_pixel", rounding="round_prefer_floor"
    )


def test_axes_of_newer_sets():
    how = {"axes": [3, 2], "opset": 18, "mode": "linear"}
    op = found(resize("s - - sizes", stored={"sizes": np.array([9, 10])}, **how))
    assert (op.height, op.width) == (10, 9)
    op = found(resize("s - scales", stored={"scales": np.array([1.5, 2], F)}, **how))
    assert (op.height, op.width) == (10, 9)


@pytest.mark.parametrize(
    ("opset", "mode", "scales"),
    [
        *(
            (opset, mode, scales)
            for opset in (7, 9, 10)
            for mode in ("nearest", "linear")
            for scales in ((2, 3), (1, 2))
        ),
        *((10, mode, scales) for mode in ("nearest", "linear") for scales in ((0.2, 0.5), (0.6, 1))),
    ],
)
def test_older_sets(opset, mode, scales):
    """Their positions are asymmetric; the nearest pixel is before an enlarged one and after a reduced one."""
    four = [1.0, 1.0, *map(float, scales)]
    if opset == 7:
        it = resize("s", stored={}, kind="Upsample", scales=four, mode=mode, opset=7)
    else:
        kind = "Upsample" if opset == 9 else "Resize"
        it = resize("s scales", stored={"scales": np.array(four, F)}, kind=kind, mode=mode, opset=opset)
    assert found(it).coordinates == "asymmetric"


def test_tensorflows_nearest_from_the_centre():
    """As tf2onnx writes it; ONNX Runtime has it still in newer sets, where the specification has not."""
    how = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor", "mode": "nearest"}
    stored = {"roi": np.array([], F), "scales": np.array([], F)} | SIZES
    assert found(resize("s roi scales sizes", stored=stored, opset=11, **how)).rounding == "round_prefer_ceil"


def test_sizes_that_the_file_computes():
    """PyTorch's exporter: the shape's first two sides, and twice the others."""
    nodes = [
        node("Shape", "s", "shape"),
        node("Slice", "shape zero two", "kept"),
        node("Slice", "shape two four", "plane"),
        node("Mul", "plane two", "doubled"),
        node("Concat", "kept doubled", "sizes", axis=0),
        node("Resize", "s e e sizes", "m", mode="linear", coordinate_transformation_mode="align_corners"),
    ]
    nodes[-1].input[:] = ["s", "", "", "sizes"]
    stored = {name: np.array([value]) for name, value in (("zero", 0), ("two", 2), ("four", 4))}
    op = found(model(*nodes, stored=stored))
    assert (op.height, op.width, op.coordinates) == (10, 12, "align_corners")


def test_a_resize_to_the_same_size_vanishes():
    it = resize("s - scales", stored={"scales": np.ones(4, F)}, mode="linear")
    assert kinds(checked(it, SHAPE)) == ["conv", "global_pool", "dense"]


@pytest.mark.parametrize(
    ("how", "stored", "says"),
    [
        ({"mode": "cubic"}, SIZES, "has the mode 'cubic'; nearest and linear are supported"),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, SIZES, "at 'tf_crop_and_resize' coordinates"),
        ({"mode": "linear", "antialias": 1, "opset": 18}, SIZES, "reduces with antialias, which is not supported"),
        ({"mode": "linear", "exclude_outside": 1}, SIZES, "excludes pixels outside the image"),
        ({"keep_aspect_ratio_policy": "not_larger", "opset": 18}, SIZES, "only stretch is supported"),
        ({}, {"sizes": np.array([1, 8, 10, 3])}, "resizes the channels"),
        ({}, {"sizes": np.array([1, 4, 10])}, "has 3 sizes or scales for 4 axes"),
        ({}, {"sizes": np.array([1, 4, 0, 3])}, "height must be a whole number from 1 to"),
        ({}, {"sizes": np.array([], np.int64)}, "has neither constant sizes nor constant scales"),
        ({"roi": "tf_half_pixel_for_nn"}, SIZES, "has an unexpected attribute 'roi'"),
    ],
)
def test_refusals(how, stored, says):
    with pytest.raises(FileError, match=f"^'Resize' [^\n]*{says}[^\n]*$"):
        from_onnx(resize("s - - sizes", stored=stored, **how))


@pytest.mark.parametrize(
    ("scales", "says"),
    [
        ([1, 1, 0.5, 2], "scales 5 pixels by 0.5, which is not a whole number of pixels"),
        ([1, 2, 2, 2], "resizes axes other than the plane"),
        ([1, 1, 0.1, 2], "scales 5x6 pixels by 0.1 and 2"),
        ([1, 1, np.nan, 2], "scales 5x6 pixels by nan and 2"),
        ([1, 1, 1e30, 2], "scales 5x6 pixels by 1e"),
    ],
)
def test_scales_that_are_refused(scales, says):
    with pytest.raises(FileError, match=f"^'Resize' [^\n]*{says}[^\n]*$"):
        from_onnx(resize("s - scales", stored={"scales": np.array(scales, F)}))


def test_one_side_larger_and_one_smaller_in_an_older_set():
    it = resize("s scales", stored={"scales": np.array([1, 1, 2, 0.5], F)}, opset=10)
    with pytest.raises(FileError, match="enlarges one side and reduces the other"):
        from_onnx(it)


# slopes, exp, differences


def test_learned_slopes():
    slopes = random(4, 1, 1)
    graph = checked(model(node("PRelu", "s p", "m"), stored={"p": slopes}), SHAPE)
    assert kinds(graph) == ["conv", "prelu", "global_pool", "dense"]
    one = {"p": np.full((4, 1, 1), 0.2, F)}
    graph = checked(model(node("PRelu", "s p", "m"), stored=one), SHAPE)
    assert kinds(graph) == ["conv", "leaky_relu", "global_pool", "dense"]
    repeated = {"p": np.broadcast_to(slopes, (4, 5, 6)).copy()}  # Keras' own, without shared_axes
    assert "prelu" in kinds(checked(model(node("PRelu", "s p", "m"), stored=repeated), SHAPE))
    below = {"p": np.full((1,), -0.5, F)}
    assert "prelu" in kinds(checked(model(node("PRelu", "s p", "m"), stored=below), SHAPE))
    with pytest.raises(FileError, match="which is not one number or one per channel"):
        from_onnx(model(node("PRelu", "s p", "m"), stored={"p": random(4, 5, 6)}))


def test_exp_and_differences():
    graph = checked(model(node("Exp", "s", "a"), node("Relu", "s", "b"), node("Sub", "a b", "m")), SHAPE)
    assert kinds(graph) == ["conv", "exp", "relu", "sub", "global_pool", "dense"]
    graph = checked(model(node("Sigmoid", "s", "a"), node("Sub", "s a", "m")), SHAPE)
    assert kinds(graph)[:3] == ["conv", "sigmoid", "sub"]
    pooled = model(node("MaxPool", "s", "a", kernel_shape=[2, 2]), node("Sub", "s a", "m"))
    with pytest.raises(FileError, match="subtracts results of different shapes"):
        from_onnx(pooled)
