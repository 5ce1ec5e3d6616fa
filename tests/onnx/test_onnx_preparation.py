"""Files that scale their images themselves, and what people say of the others: the answer to an image is the file's."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from artifacts import artifact
from networks import every_op, tiny
from onnx_files import STORED, answer, head, made, node
from smallcnn.engines.engine import Loadable, start
from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides, described
from smallcnn.model.model import Model
from smallcnn.model.probe import output_error, probe_answer, relative_error
from smallcnn.model.store import load, save
from smallcnn.onnx import export, read_onnx
from smallcnn.reference import floating as reference

TOLERANCE = 1e-5  # float32 sums, and one more rounding of each pixel where scale and shift are composed

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's
CAFFE = np.array([103.939, 116.779, 123.68])  # blue first

PIXELS = np.random.default_rng(3).integers(0, 256, (1, 5, 6, 3), np.uint8)


def first(values):
    """Per channel, of (N, C, H, W)."""
    return np.asarray(values, np.float32).reshape(1, 3, 1, 1)


def last(values):
    """Per channel, of (N, H, W, C)."""
    return np.asarray(values, np.float32)


def f(value):
    return np.float32(value)


TURN = node("Transpose", "i", "a", perm=[0, 3, 1, 2])

# what the file does to x, ending in `a` as (N, C, H, W); its constants; what it is fed, of pixels; channels last
SELF = {
    "/ 255": ([node("Div", "x k", "a")], {"k": f(255)}, lambda p: p, False),
    "* 1/255": ([node("Mul", "k x", "a")], {"k": f(1 / 255)}, lambda p: p, False),
    "/ 255, channels last": ([node("Div", "x k", "i"), TURN], {"k": f(255)}, lambda p: p, True),
    "turned, then / 255": (
        [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Div", "t k", "a")],
        {"k": f(255)},
        lambda p: p,
        True,
    ),
    "/ 127.5 - 1, with what does nothing between": (
        [
            node("Div", "x k", "b"),
            node("Identity", "b", "c"),
            node("Dropout", "c", "d"),
            node("Sub", "d one", "i"),
            TURN,
        ],
        {"k": f(127.5), "one": f(1)},
        lambda p: p,
        True,
    ),
    "ImageNet's of 0..255": (
        [node("Sub", "x m", "b"), node("Div", "b d", "a")],
        {"m": first(255 * MEAN), "d": first(255 * STD)},
        lambda p: p,
        False,
    ),
    "ImageNet's of 0..1, behind / 255": (
        [node("Div", "x k", "b"), node("Sub", "b m", "c"), node("Div", "c d", "a")],
        {"k": f(255), "m": first(MEAN), "d": first(STD)},
        lambda p: p,
        False,
    ),
    "ImageNet's of 0..1": (
        [node("Sub", "x m", "b"), node("Div", "b d", "a")],
        {"m": first(MEAN), "d": first(STD)},
        lambda p: p / 255,
        False,
    ),
    "2 x - 1": (
        [node("Mul", "x two", "b"), node("Sub", "b one", "a")],
        {"two": f(2), "one": f(1)},
        lambda p: p / 255,
        False,
    ),
    "batch norm of 0..255": (
        [node("BatchNormalization", "x s z m d", "a", epsilon=1e-3)],
        {"s": last([1, 1, 1]), "z": last([0, 0, 0]), "m": last(255 * MEAN), "d": last((255 * STD) ** 2)},
        lambda p: p,
        False,
    ),
    "* 255, then a mean": (
        [node("Mul", "x k", "b"), node("Sub", "b m", "a")],
        {"k": f(255), "m": first(255 * MEAN)},
        lambda p: p / 255,
        False,
    ),
    "from -1..1 to ImageNet's": (
        [node("Mul", "x h", "b"), node("Add", "b h", "c"), node("Sub", "c m", "d"), node("Div", "d s_", "a")],
        {"h": f(0.5), "m": first(MEAN), "s_": first(STD)},
        lambda p: p / 127.5 - 1,
        False,
    ),
    "torchvision's transform_input": (
        [
            *(node("Gather", f"x i{i}", f"g{i}", axis=1) for i in range(3)),
            *(node("Unsqueeze", f"g{i} i1_", f"u{i}") for i in range(3)),
            *(node("Mul", f"u{i} k{i}", f"k_{i}") for i in range(3)),
            *(node("Add", f"k_{i} t{i}", f"o{i}") for i in range(3)),
            node("Concat", "o0 o1 o2", "a", axis=1),
        ],
        {f"i{i}": np.array(i) for i in range(3)}
        | {"i1_": np.array([1])}
        | {f"k{i}": f(STD[i] / 0.5) for i in range(3)}
        | {f"t{i}": f((MEAN[i] - 0.5) / 0.5) for i in range(3)},
        lambda p: (p / 255 - MEAN) / STD,
        False,
    ),
    "Caffe's, by Gather": (
        [node("Gather", "x i", "b", axis=1), node("Sub", "b m", "a")],
        {"i": np.array([2, 1, 0]), "m": first(CAFFE)},
        lambda p: p,
        False,
    ),
    "Caffe's, by Slice, channels last": (
        [node("Slice", "x e e0 e1 e2", "b"), node("Sub", "b m", "i"), TURN],
        {"e": np.array([-1]), "e0": np.array([-(2**63)]), "e1": np.array([3]), "e2": np.array([-1]), "m": last(CAFFE)},
        lambda p: p,
        True,
    ),
    "Caffe's, by Split and Concat": (
        [
            node("Split", "x", "r g b", axis=3, num_outputs=3),
            node("Concat", "b g r", "c", axis=3),
            node("Sub", "c m", "i"),
            TURN,
        ],
        {"m": last(CAFFE)},
        lambda p: p,
        True,
    ),
    "scaled, then blue first": (
        [node("Sub", "x m", "b"), node("Gather", "b i", "a", axis=1)],
        {"i": np.array([2, 1, 0]), "m": first(CAFFE[::-1])},
        lambda p: p,
        False,
    ),
    "white on black": (
        [node("Div", "x k", "b"), node("Sub", "one b", "a")],
        {"k": f(255), "one": f(1)},
        lambda p: p,
        False,
    ),
    "zeros around, then / 255": (
        [node("Pad", "x p", "b"), node("Div", "b k", "a")],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "k": f(255)},
        lambda p: p,
        False,
    ),
    "/ 255, then a batch norm that was learned": (
        [node("Div", "x k", "b"), node("BatchNormalization", "b s z m d", "a")],
        {"k": f(255), "s": last([0.3, -2, 1.5]), "z": last([0.1, 4, -2]), "m": last(MEAN), "d": last(STD)},
        lambda p: p,
        False,
    ),
    "cut to 0..255, then a batch norm that was learned": (
        [node("Clip", "x low high", "b"), node("BatchNormalization", "b s z m d", "a")],
        {
            "low": f(0),
            "high": f(255),
            "s": last([3, 2, 5]),
            "z": last([0, 4, -2]),
            "m": last([0, 1, 2]),
            "d": last([1, 1, 1]),
        },
        lambda p: p,
        False,
    ),
    "a convolution of one pixel and channel": (
        [node("Conv", "x k t", "a", group=3)],
        {"k": f(1 / (255 * STD)).reshape(3, 1, 1, 1), "t": f(-MEAN / STD)},
        lambda p: p,
        False,
    ),
    "Caffe's, by a convolution of one pixel": (
        [node("Conv", "x k t", "a")],
        {"k": np.eye(3, dtype=np.float32)[::-1].reshape(3, 3, 1, 1), "t": f(-CAFFE)},
        lambda p: p,
        False,
    ),
    "red and green exchanged": (
        [node("Gather", "x i", "b", axis=1), node("Div", "b k", "a")],
        {"i": np.array([1, 0, 2]), "k": f(255)},
        lambda p: p,
        False,
    ),
}


def network(nodes, stored, channels_last, **options):
    body = [node("Conv", "a w", "conv", pads=[1, 1, 1, 1]), node("Relu", "conv", "relu"), *head("relu")]
    shape = ["N", 5, 6, 3] if channels_last else ["N", 3, 5, 6]
    return made([*nodes, *body], shape, STORED | stored, opset=18, **options)


def saved(it, folder):
    (folder / "net.onnx").write_bytes(it.SerializeToString())
    return folder / "net.onnx"


def agrees(made_of_it, it, fed, channels_last):
    """Whether an artifact answers to the pixels as ONNX Runtime does to what the file is fed."""
    x = np.asarray(fed, np.float32) if channels_last else np.asarray(fed, np.float32).transpose(0, 3, 1, 2)
    got = reference.answer(made_of_it.graph, made_of_it.weights, made_of_it.preprocessing.normalise(PIXELS))
    assert output_error(got, answer(it, x)) < TOLERANCE


@pytest.mark.parametrize("name", SELF)
def test_files_that_scale_their_images(name, tmp_path):
    nodes, stored, fed, channels_last = SELF[name]
    it = network(nodes, stored, channels_last)
    agrees(read_onnx(saved(it, tmp_path)), it, fed(PIXELS.astype(np.float64)), channels_last)


def test_bytes_that_are_turned_before_they_are_cast(tmp_path):
    nodes = [
        node("Gather", "x i", "b", axis=3),
        node("Cast", "b", "c", to=TensorProto.FLOAT),
        node("Sub", "c m", "i_"),
        node("Transpose", "i_", "a", perm=[0, 3, 1, 2]),
    ]
    it = network(nodes, {"i": np.array([2, 1, 0]), "m": last(CAFFE)}, True, kind=TensorProto.UINT8)
    read = read_onnx(saved(it, tmp_path))
    got = reference.answer(read.graph, read.weights, read.preprocessing.normalise(PIXELS))
    assert output_error(got, answer(it, PIXELS)) < TOLERANCE
    assert read.preprocessing.order == "bgr"


@pytest.mark.parametrize("kind", ["Tile", "Expand", "Concat"])
def test_a_grey_image_for_a_network_of_colours(tmp_path, kind):
    copies = {
        "Tile": node("Tile", "b t", "a"),
        "Expand": node("Expand", "b e", "a"),
        "Concat": node("Concat", "b b b", "a", axis=1),
    }
    body = [node("Conv", "a w", "conv", pads=[1, 1, 1, 1]), node("Relu", "conv", "relu"), *head("relu")]
    stored = {"k": f(255), "t": np.array([1, 3, 1, 1]), "e": np.array([1, 3, 5, 6])}
    it = made([node("Div", "x k", "b"), copies[kind], *body], ["N", 1, 5, 6], STORED | stored)
    read = read_onnx(saved(it, tmp_path))
    grey = PIXELS[..., :1]
    got = reference.answer(read.graph, read.weights, read.preprocessing.normalise(grey))
    assert output_error(got, answer(it, grey.astype(np.float32).transpose(0, 3, 1, 2))) < TOLERANCE


def test_an_image_scaler_is_fed_bytes(tmp_path):
    """ONNX Runtime has no such operator: scale and bias as two of today's."""
    scaler = node("ImageScaler", "x", "a", scale=1 / 128, bias=[-0.8, -0.9, -1.0])
    it = made(
        [scaler, node("Conv", "a w", "s", pads=[1] * 4), node("Relu", "s", "m"), *head()],
        ["N", 3, 5, 6],
        STORED,
        opset=7,
    )
    today = [node("Mul", "x k", "b"), node("Add", "b t", "a")]
    same = network(today, {"k": f(1 / 128), "t": first([-0.8, -0.9, -1.0])}, False)
    agrees(read_onnx(saved(it, tmp_path)), same, PIXELS, False)


@pytest.mark.parametrize(
    ("says", "fed"),
    [
        ({"Image.NominalPixelRange": "NominalRange_0_255"}, lambda p: p),
        ({"Image.NominalPixelRange": "Normalized_0_1"}, lambda p: p / 255),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, lambda p: p / 127.5 - 1),
        ({"Image.NominalPixelRange": "NominalRange_0_255", "Image.BitmapPixelFormat": "Bgr8"}, lambda p: p[..., ::-1]),
    ],
)
def test_what_windows_ml_says_of_its_images(tmp_path, says, fed):
    it = network([node("Identity", "x", "a")], {}, False)
    helper.set_model_props(it, says)
    agrees(read_onnx(saved(it, tmp_path)), it, fed(PIXELS.astype(np.float64)), False)


@pytest.mark.parametrize("nodes", [[node("Mul", "x two", "a")], [node("Add", "x two", "b"), node("Mul", "b two", "a")]])
def test_what_does_not_tell_is_not_guessed(tmp_path, nodes):
    path = saved(network(nodes, {"two": f(2)}, False), tmp_path)
    with pytest.raises(FileError, match=r"net.onnx: first computes image \* 2 \+ [04], which does not fix the range"):
        read_onnx(path)
    assert read_onnx(path, Overrides(mean=(0.0,), std=(1.0,))).facts["onnx"]["pictures"] == "given"


# what people say

SAID = {
    "Caffe's": (Overrides(mean=(104.0, 117.0, 123.0), order="bgr"), lambda p: p[..., ::-1] - [104, 117, 123]),
    "Caffe's with a factor": (
        Overrides(mean=(103.94, 116.78, 123.68), scale=(0.017,), order="bgr"),
        lambda p: (p[..., ::-1] - [103.94, 116.78, 123.68]) * 0.017,
    ),
    "of 0..255": (
        Overrides(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        lambda p: (p - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375],
    ),
    "of 0..1": (
        Overrides(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        lambda p: (p / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6],
    ),
    "bytes as they are": (Overrides(scale=(1.0,)), lambda p: p),
    "a std of bytes alone": (Overrides(mean=(0.0,), std=(255.0,)), lambda p: p / 255),
    "one number for all": (Overrides(mean=(127.5,), std=(127.5,)), lambda p: p / 127.5 - 1),
    "blue first alone": (Overrides(order="bgr"), lambda p: ((p / 255 - MEAN) / STD)[..., ::-1]),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_is_done(name, tmp_path):
    said, fed = SAID[name]
    it = network([node("Identity", "x", "a")], {}, False)
    agrees(read_onnx(saved(it, tmp_path), said), it, fed(PIXELS.astype(np.float64)), False)


def test_what_is_said_comes_before_what_the_file_does(tmp_path):
    """The file turns its channels and divides by 255; it is fed blue first, less a mean."""
    nodes = [node("Gather", "x i", "b", axis=1), node("Div", "b k", "a")]
    it = network(nodes, {"i": np.array([2, 1, 0]), "k": f(255)}, False)
    read = read_onnx(saved(it, tmp_path), Overrides(mean=(10.0, 20.0, 30.0), order="bgr"))
    agrees(read, it, PIXELS[..., ::-1].astype(np.float64) - [10, 20, 30], False)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (Overrides(mean=(104.0, 117.0, 123.0), std=(0.017,)), "give a factor as --scale"),
        (Overrides(mean=(0.485, 0.456, 0.406), std=(58.0,)), "give both on one scale"),
        (Overrides(std=(1.0,), scale=(1.0,)), "give only one of them"),
        (Overrides(scale=(0.0,)), "scale must be above 0"),
        (Overrides(mean=(float("inf"),)), "mean must be finite"),
        (Overrides(mean=(1.0, 2.0)), "mean must be"),
        (Overrides(scale=(1.0, 2.0)), "std must be"),
    ],
)
def test_what_cannot_be_meant(tmp_path, said, says):
    with pytest.raises(FileError, match=says):
        read_onnx(saved(network([node("Identity", "x", "a")], {}, False), tmp_path), said)


def test_the_commands_say_what_they_assume(smallcnn, refused, tmp_path):
    plain, out = saved(network([node("Identity", "x", "a")], {}, False), tmp_path), tmp_path / "m.safetensors"
    assumed = "assumed, as the file does not state how its images are prepared: mean 0.485,0.456,0.406"
    assert assumed in smallcnn("import", plain, "--out", out)[2]
    _, _, remarks = smallcnn("import", plain, "--mean", "104,117,123", "--order", "bgr", "--out", out)
    assert (
        "as given, it is fed images with mean 104,117,123 and standard deviation 1 of pixels of 0..255, BGR" in remarks
    )
    assert load(out).preprocessing.order == "bgr"
    scaled = saved(network([node("Div", "x k", "a")], {"k": f(255)}, False), tmp_path)
    _, _, remarks = smallcnn("import", scaled, "--out", out)
    assert "as the file scales its images itself, it is fed images with mean 0 and standard deviation 1" in remarks
    _, _, remarks = smallcnn("import", scaled, "--mean", "0.485,0.456,0.406", "--std", "0.2", "--out", out)
    assert "note: what the file does to its images itself asks for pixels of 0..255" in remarks
    assert "contains its own preprocessing" in refused("compile", out, "--mean", "0", "--out", tmp_path / "m.so")


def test_our_own_file_is_not_spoken_of_as_somebody_elses(smallcnn, tmp_path):
    theirs = saved(network([node("Div", "x k", "a")], {"k": f(255)}, False), tmp_path)
    imported, exported, out = (tmp_path / name for name in ("m.safetensors", "m.onnx", "again.safetensors"))
    assert smallcnn("import", theirs, "--out", imported)[0] == 0
    assert smallcnn("export", imported, "--to", "onnx", "--out", exported)[0] == 0
    _, _, remarks = smallcnn("import", exported, "--out", out)
    assert "it is fed" not in remarks
    assert load(out).preprocessing == load(imported).preprocessing


def test_compile_says_what_it_assumes(smallcnn, tmp_path):
    pytest.importorskip("halide")
    plain, out = saved(network([node("Identity", "x", "a")], {}, False), tmp_path), tmp_path / "m.so"
    code, _, remarks = smallcnn("compile", plain, "--out", out)
    assert code == 0
    assert "assumed, as the file does not state how its images are prepared: mean 0.485,0.456,0.406" in remarks
    code, _, remarks = smallcnn("compile", plain, "--mean", "104,117,123", "--order", "bgr", "--out", out)
    assert code == 0
    assert (
        "as given, it is fed images with mean 104,117,123 and standard deviation 1 of pixels of 0..255, BGR" in remarks
    )


# blue first, everywhere


def blue_first(graph):
    made_of_it = artifact(graph)
    preprocessing = Preprocessing(graph.input_shape[:2], (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), order="bgr")
    return Model(made_of_it.graph, made_of_it.weights, made_of_it.task, preprocessing)


def expected(it, batch):
    """By hand: the channels turned round, then mean and std in the network's order."""
    x = (batch[..., ::-1] / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.25, 0.3])
    return reference.answer(it.graph, it.weights, x)


def input_read_twice():
    from smallcnn.ir.builder import Builder

    g = Builder(input=(8, 8, 3))
    x = g.conv(g.concat(g.depthwise(g.input, kernel=3), g.input), 4)
    return g.graph(g.dense(g.global_pool(x), 3, name="classifier"), features=x, name="twice")


GRAPHS = {"tiny": tiny, "every operator": every_op, "the input read by others": input_read_twice}


@pytest.mark.parametrize("engine", ["onnxruntime", "torch", "compiled"])
@pytest.mark.parametrize("name", GRAPHS)
def test_blue_first_in_every_engine(name, engine, tmp_path):
    it = blue_first(GRAPHS[name]())
    batch = np.random.default_rng(0).integers(0, 256, (1, *it.graph.input_shape), np.uint8)
    if engine == "compiled":
        pytest.importorskip("halide")
        from smallcnn.compiler.compiling import compile_file
        from smallcnn.engines import compiled

        compile_file(it, tmp_path / "m.so")
        got = compiled.load(tmp_path / "m.so").run(batch)
    else:
        got = start(Loadable(it, "m"), engine, 1).run(batch)
    assert output_error(got["logits"], expected(it, batch)) < TOLERANCE


@pytest.mark.parametrize("name", GRAPHS)
def test_blue_first_in_files(name, tmp_path):
    it = blue_first(GRAPHS[name]())
    save(it, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").preprocessing == it.preprocessing
    export(it, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    assert read.preprocessing.order == "rgb"
    got = probe_answer(read.graph, read.weights, read.preprocessing)
    assert relative_error(got, probe_answer(it.graph, it.weights, it.preprocessing)) < TOLERANCE


def test_blue_first_in_training():
    torch = pytest.importorskip("torch")
    from smallcnn.train.validation import Pixels

    preprocessing = Preprocessing((5, 6), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), order="bgr")
    pixels = Pixels(preprocessing, torch.device("cpu"))
    got = pixels.normalise(pixels.load(PIXELS)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, preprocessing.normalise(PIXELS), atol=1e-5)  # a few roundings of values near 3


def test_files_without_an_order_are_red_first():
    old = '{"size": [5, 6], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop": 1.0, "interpolation": "bilinear"}'
    assert Preprocessing.from_json(old).order == "rgb"
    assert "order" not in Preprocessing((5, 6)).to_json()
    turned = Preprocessing((5, 6), order="bgr")
    assert Preprocessing.from_json(turned.to_json()) == turned
    for mean, order in (("[1, 1, 1]", '"grb"'), ("[1, 1, 1]", "1"), ("[1]", '"bgr"')):
        with pytest.raises(FileError, match="order must be rgb"):
            Preprocessing.from_json(f'{{"size": [5, 6], "mean": {mean}, "std": {mean}, "order": {order}}}')


def test_numbers_are_told_in_the_pixels_they_are_of():
    assert described(Preprocessing((5, 6), (0.0,) * 3, (1 / 255,) * 3)) == (
        "mean 0 and standard deviation 1 of pixels of 0..255, RGB"
    )


@pytest.mark.parametrize(
    ("turned", "mean", "order"),
    [
        (False, 255 * MEAN, "rgb"),
        (False, CAFFE, "bgr"),
        (False, np.array([104.0, 117.0, 123.0]), "bgr"),
        (True, CAFFE, "rgb"),
        (True, 255 * MEAN, "bgr"),
        (True, np.full(3, 127.5), "rgb"),
    ],
)
def test_the_mean_tells_the_order_that_a_file_is_fed(turned, mean, order, tmp_path):
    """As OpenCV gives images blue first: some files turn them round themselves, Caffe's networks take them so."""
    index = [2, 1, 0] if turned else [0, 1, 2]
    nodes = [node("Gather", "x i", "b", axis=1), node("Sub", "b m", "a")]
    it = network(nodes, {"i": np.array(index), "m": first(mean)}, False)
    fed = PIXELS if order == "rgb" else PIXELS[..., ::-1]
    model = read_onnx(saved(it, tmp_path))
    agrees(model, it, fed.astype(np.float32), False)
    assert order.upper() in model.facts["onnx"]["fed"]
