"""How other writers spell things: old operator sets, unread outputs, tails, data next to the model, gates, channels."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_files import STEM, STORED, TOLERANCE, answer, checked, head, kinds, made, node, random
from smallcnn.errors import FileError
from smallcnn.model.probe import output_error
from smallcnn.model.store import load
from smallcnn.onnx import from_onnx, read_onnx
from smallcnn.reference import floating as reference

SHAPE = [1, 3, 5, 6]


def model(*nodes, stored=None, **options):
    return made([STEM, *nodes, *head()], SHAPE, STORED | (stored or {}), **options)


def saved(it, folder, name="net.onnx"):
    (folder / name).write_bytes(it.SerializeToString())
    return folder / name


# outputs and order


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Dropout", "s", "m mask")],
        [node("MaxPool", "s", "m places", kernel_shape=[2, 2])],
        [node("Dropout", "s", "a mask"), node("MaxPool", "a", "m places", kernel_shape=[2, 2])],
    ],
    ids=["mask", "places", "both"],
)
def test_outputs_that_nobody_reads(nodes):
    checked(model(*nodes), SHAPE)


def test_batch_norm_of_five_outputs():
    """As Caffe2's files have it; ONNX Runtime refuses the four names, so it is asked without them."""
    stored = {"p": random(4) ** 2 + 0.1}
    five = model(node("BatchNormalization", "s v v v p", "m mean var saved_mean saved_var"), stored=stored, opset=8)
    one = model(node("BatchNormalization", "s v v v p", "m"), stored=stored)
    x = random(*SHAPE)
    read = from_onnx(five)
    got = reference.answer(read.graph, read.weights, x.transpose(0, 2, 3, 1))
    assert output_error(got, answer(one, x)) < TOLERANCE


def test_batch_norm_without_epsilon():
    """PyTorch's BatchNorm2d(eps=0); the graph's is above 0, but so small that it changes nothing."""
    norm = node("BatchNormalization", "s v v v p", "m", epsilon=0.0)
    checked(model(norm, stored={"p": random(4) ** 2 + 0.1}), SHAPE)
    with pytest.raises(FileError, match="a variance that is not above 0"):
        from_onnx(model(norm, stored={"p": np.zeros(4, np.float32)}))


def test_operators_in_any_order():
    it = model(node("Relu", "s", "r"), node("Add", "r s", "m"))
    wanted = answer(it, random(*SHAPE))
    for order in (range(5, -1, -1), (3, 0, 5, 2, 4, 1)):
        nodes = [it.graph.node[i] for i in order]
        mixed = onnx.ModelProto()
        mixed.CopyFrom(it)
        del mixed.graph.node[:]
        mixed.graph.node.extend(nodes)
        read = from_onnx(mixed)
        got = reference.answer(read.graph, read.weights, random(*SHAPE).transpose(0, 2, 3, 1))
        assert output_error(got, wanted) < TOLERANCE


# data next to the model


def beside(folder, name="net.onnx", **entries):
    """A model whose weights `w` are in a file of their own, with these entries of its description changed."""
    it = model(node("Relu", "s", "m"))
    stored = it.graph.initializer[0]
    data = stored.raw_data
    said = {"location": "net.onnx.data", "offset": "8", "length": str(len(data))} | entries
    (folder / "net.onnx.data").write_bytes(bytes(8) + data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        if value is not None:
            stored.external_data.add(key=key, value=value)
    return saved(it, folder, name)


def test_data_beside_the_model(tmp_path):
    read = read_onnx(beside(tmp_path))
    np.testing.assert_array_equal(read.weights["Conv_s.weight"], STORED["w"])
    assert list(read.facts["onnx"]["beside"]) == ["net.onnx.data"]
    read_onnx(beside(tmp_path, length=None))
    read_onnx(beside(tmp_path, location="./net.onnx.data"))


def test_data_beside_the_model_in_other_case(tmp_path):
    path = beside(tmp_path, "NET.ONNX")
    (tmp_path / "net.onnx.data").rename(tmp_path / "NET.ONNX.DATA")
    np.testing.assert_array_equal(read_onnx(path).weights["Conv_s.weight"], STORED["w"])


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "gone.data"}, "'w' is stored in 'gone.data', which is missing"),
        ({"location": "../net.onnx.data"}, "leaves the model's folder"),
        ({"location": "a/../../net.onnx.data"}, "leaves the model's folder"),
        ({"location": "..\\net.onnx.data"}, "leaves the model's folder"),
        ({"location": "/etc/passwd"}, "only files in the model's own folder"),
        ({"location": "C:\\weights"}, "only files in the model's own folder"),
        ({"location": "\\\\server\\weights"}, "only files in the model's own folder"),
        ({"location": ""}, "only files in the model's own folder"),
        ({"location": "a\0b"}, "only files in the model's own folder"),
        ({"location": "."}, "not a regular file"),
        ({"location": "folder"}, "not a regular file"),
        ({"location": "pipe"}, "not a regular file"),
        ({"location": "link"}, "a link out of the model's folder"),
        ({"location": "linked/weights"}, "a link out of the model's folder"),
        ({"offset": "9"}, "which has only 440; is it complete"),
        ({"offset": str(10**17)}, "which has only 440"),
        ({"offset": "-8"}, "has offset '-8'"),
        ({"offset": "9" * 100}, "has offset"),
        ({"length": "431"}, "takes 431 bytes of 'net.onnx.data', not the 432 of its shape"),
        ({"length": "many"}, "has length 'many'"),
    ],
)
def test_data_that_is_not_beside_the_model(tmp_path, entries, says):
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    for made_here in (outside, folder, folder / "folder"):
        made_here.mkdir()
    (outside / "weights").write_bytes(bytes(1000))
    (folder / "link").symlink_to(outside / "weights")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    with pytest.raises(FileError, match=r"net\.onnx: ") as caught:
        read_onnx(beside(folder, **entries))
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_one_file_cannot_stand_for_gigabytes(tmp_path):
    it = model(node("Relu", "s", "m"), *(node("Add", f"w{i} w{i}", f"a{i}") for i in range(40)))
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**26)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**31)
    for i in range(40):
        stored = it.graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[2**24])
        stored.data_location = TensorProto.EXTERNAL
        stored.external_data.add(key="location", value="holes")
    it.graph.node.append(node("Sum", "y " + " ".join(f"a{i}" for i in range(40)), "z"))
    it.graph.output[0].name = "z"
    with pytest.raises(FileError, match="more than 1,073,741,824 bytes in other files"):
        read_onnx(saved(it, tmp_path))
    with pytest.raises(FileError, match="2,147,483,648 bytes; at most 1,073,741,824 are read"):
        read_onnx(beside(tmp_path, location="huge"))


# old operator sets

NORM = {"scale": random(4, seed=1), "shift": random(4, seed=2), "mean": random(4, seed=3), "p": random(4) ** 2 + 0.1}
FOUR = {"c": random(4, seed=5)}

OLD = {  # operators as an old set has them, the same as today's, what both read
    "add by axis": ([node("Add", "s c", "m", broadcast=1, axis=1)], [node("Add", "s c1", "m")]),
    "mul by a number": ([node("Mul", "s one", "m", broadcast=1)], [node("Mul", "s one", "m")]),
    "sub and div": (
        [node("Sub", "s c", "a", broadcast=1, axis=1), node("Div", "a c", "m", broadcast=1, axis=-3)],
        [node("Sub", "s c1", "a"), node("Div", "a c1", "m")],
    ),
    "batch norm": (
        [node("BatchNormalization", "s scale shift mean p", "m", is_test=1, consumed_inputs=[0, 0, 0, 1, 1])],
        [node("BatchNormalization", "s scale shift mean p", "m")],
    ),
    "dropout, clip, pad": (
        [
            node("Dropout", "s", "a mask", is_test=1, ratio=0.3, consumed_inputs=[0]),
            node("Clip", "a", "b", min=-0.5, max=2.0, consumed_inputs=[0]),
            node("Pad", "b", "m", paddings=[0, 0, 1, 0, 0, 0, 2, 1]),
        ],
        [node("Clip", "s low high", "b"), node("Pad", "b pads", "m")],
    ),
    "cast by name, activations": (
        [
            node("Relu", "s", "a", consumed_inputs=[0]),
            node("Cast", "a", "b", to="FLOAT"),
            node("HardSigmoid", "b", "d", alpha=0.3, beta=0.4, consumed_inputs=[0]),
            node("Affine", "d", "m", alpha=2.0, beta=-1.0),
        ],
        [
            node("Relu", "s", "b"),
            node("HardSigmoid", "b", "d", alpha=0.3, beta=0.4),
            node("Mul", "d two", "e"),
            node("Sub", "e one", "m"),
        ],
    ),
    "concat without an axis": (
        [node("Concat", "s s", "a"), node("Slice", "a", "m", axes=[1], starts=[2], ends=[6])],
        [node("Concat", "s s", "a", axis=1), node("Slice", "a from to one_axis", "m")],
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_old_operator_sets(name):
    """ONNX Runtime runs no set below 7: it answers to the same network as today's sets write it."""
    numbers = {"one": np.float32(1), "two": np.float32(2), "low": np.float32(-0.5), "high": np.float32(2)}
    places = {"pads": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "from": np.array([2]), "to": np.array([6])}
    stored = NORM | FOUR | {"c1": FOUR["c"].reshape(4, 1, 1)} | numbers | places | {"one_axis": np.array([1])}
    old, new = OLD[name]
    opset = 1 if name in ("dropout, clip, pad", "cast by name, activations", "concat without an axis") else 6
    last = [
        node("GlobalAveragePool", "m", "pooled"),
        node("Reshape", "pooled", "flat", shape=[-1, 4]) if opset == 1 else node("Flatten", "pooled", "flat"),
        node("Gemm", "flat dense bias", "y", transB=1, broadcast=1),
    ]
    stored |= STORED | {"bias": random(2, seed=9), "zero": np.zeros(2, np.float32)}
    read = from_onnx(made([STEM, *old, *last], SHAPE, stored, opset=opset))
    ending = [last[0], node("Flatten", "pooled", "flat"), node("Gemm", "flat dense bias", "y", transB=1)]
    today = made([STEM, *new, *ending], SHAPE, stored)
    x = random(*SHAPE, seed=4)
    got = reference.answer(read.graph, read.weights, read.entry.of(x.transpose(0, 2, 3, 1)))
    assert output_error(got, answer(today, x)) < TOLERANCE


# gates


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.2, 0.5), (1 / 6, 0.5), (0.3, 0.2), (0.2, 0.45), (1.0, 0.0), (-0.25, 0.5)]
)
@pytest.mark.parametrize("swish", [False, True])
def test_hard_sigmoid_and_hard_swish_of_any_slope(alpha, beta, swish):
    nodes = [node("HardSigmoid", "s", "h" if swish else "m", alpha=alpha, beta=beta)]
    checked(model(*nodes, *([node("Mul", "h s", "m")] if swish else [])), SHAPE)


@pytest.mark.parametrize("low", [0.0, -0.5])
@pytest.mark.parametrize("add", [3.0, 2.5, 0.0])
def test_hard_swish_spelled_with_other_numbers(low, add):
    nodes = [
        node("Add", "s add", "a"),
        node("Clip", "a low high", "b"),
        node("Mul", "s b", "d"),
        node("Div", "d by", "m"),
    ]
    numbers = {"add": add, "low": low, "high": 5.0, "by": 5.0}
    checked(model(*nodes, stored={key: np.float32(value) for key, value in numbers.items()}), SHAPE)


@pytest.mark.parametrize("order", ["Min Max", "Max Min", "Relu Min", "Clip Relu"])
def test_bounds_in_several_steps(order):
    """x * min(max(x + 3, 0), 6) / 6, the bounds one after the other."""
    first, second = order.split()
    steps = {
        "Min": "Min {} six {}", "Max": "Max zero {} {}", "Relu": "Relu {} {}", "Clip": "Clip {} low six {}",
    }  # fmt: skip
    made_of = [steps[first].format("a", "b").split(), steps[second].format("b", "d").split()]
    bounds = [node(kind, " ".join(rest), output) for kind, *rest, output in made_of]
    nodes = [node("Add", "three s", "a"), *bounds, node("Mul", "d s", "e"), node("Mul", "sixth e", "m")]
    numbers = {"three": 3, "six": 6, "zero": 0, "low": -2, "sixth": 1 / 6}
    graph = checked(model(*nodes, stored={key: np.float32(value) for key, value in numbers.items()}), SHAPE)
    assert kinds(graph)[1] == "hard_swish"


def test_a_gate_without_an_upper_bound_is_refused():
    nodes = [node("Clip", "s low", "a"), node("Mul", "a s", "m")]
    with pytest.raises(FileError, match="multiplies two results"):
        from_onnx(model(*nodes, stored={"low": np.float32(-1)}))


def test_hard_swish_stays_one_operator():
    graph = checked(model(node("HardSigmoid", "s", "h", alpha=0.16666667, beta=0.5), node("Mul", "h s", "m")), SHAPE)
    assert kinds(graph)[1] == "hard_swish"


def test_dilation():
    convolution = node("Conv", "s k", "m", dilations=[2, 3], pads=[2, 3, 2, 3])
    graph = checked(model(convolution, stored={"k": random(4, 4, 3, 3)}), SHAPE)
    assert [node.op.dilation for node in graph if node.op.kind == "conv"] == [(1, 1), (2, 3)]


def test_dilation_of_one_pixel_means_nothing():
    checked(model(node("Conv", "s k", "m", dilations=[2, 3]), stored={"k": random(4, 4, 1, 1)}), SHAPE)
    checked(
        model(node("Conv", "s k", "m", dilations=[1, 3], pads=[1, 0, 1, 0]), stored={"k": random(4, 4, 3, 1)}), SHAPE
    )


# channels


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [3, 2, 1, 0], [0, 2, 1, 3], [1, 1, 3, 0], [-1, 0, 1, 2]], ids=str)
def test_channels_in_any_order(order):
    checked(model(node("Gather", "s i", "m", axis=1), stored={"i": np.array(order)}), SHAPE)


def test_a_gather_that_is_a_shuffle():
    stored = {"i": np.arange(4).reshape(2, 2).T.reshape(-1), "k": random(4, 4, 1, 1)}
    graph = checked(model(node("Gather", "s i", "a", axis=1), node("Conv", "a k", "m"), stored=stored), SHAPE)
    assert kinds(graph)[1] == "shuffle"


def test_a_shuffle_before_a_mean():
    """The mean is a vector, whose channels cannot be shuffled: those of the map are."""
    stored = {"i": np.arange(4).reshape(2, 2).T.reshape(-1), "k": random(4, 4, 1, 1)}
    shuffle, mean = node("Gather", "s i", "a", axis=1), node("GlobalAveragePool", "a", "b")
    gate = [node("Conv", "b k", "c"), node("Mul", "s c", "m")]
    graph = checked(model(shuffle, mean, *gate, stored=stored), SHAPE)
    assert kinds(graph)[1:3] == ["shuffle", "global_pool"]


def test_a_constant_per_channel_of_one_pixel():
    stored = {"k": random(4, 4, 1, 1), "u": random(1, 4, 1, 1)}
    pooled = node("GlobalAveragePool", "s", "a")
    checked(
        model(pooled, node("Conv", "a k", "b"), node("Add", "b u", "c"), node("Mul", "s c", "m"), stored=stored), SHAPE
    )


def test_every_other_channel_and_backwards():
    every = {"a": np.array([3]), "b": np.array([-(2**63)]), "c": np.array([1]), "d": np.array([-1])}
    checked(model(node("Slice", "s a b c d", "m"), stored=every), SHAPE)
    other = every | {"a": np.array([0]), "b": np.array([4]), "d": np.array([2]), "dense": random(2, 2)}
    checked(model(node("Slice", "s a b c d", "m"), stored=other), SHAPE)


# tails


def named(name, kind, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


ZIP = helper.make_node("ZipMap", ["p"], ["map"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"])
LABELS = helper.make_node(
    "LabelEncoder", ["k"], ["word"], domain="ai.onnx.ml", keys_int64s=[0, 1], values_strings=["cat", "dog"]
)
EXTRACT = helper.make_node("ArrayFeatureExtractor", ["names", "k"], ["word"], domain="ai.onnx.ml")
BEST = node("ArgMax", "p", "k", axis=1, keepdims=0)

TAILS = {
    "ZipMap": ([ZIP], [onnx.ValueInfoProto(name="map")], True),
    "ZipMap and ArgMax": ([ZIP, BEST], [named("k", TensorProto.INT64), onnx.ValueInfoProto(name="map")], True),
    "ArgMax, cast and reshaped": (
        [BEST, node("Cast", "k", "k32", to=TensorProto.INT32), node("Reshape", "k32 minus", "r")],
        [named("r", TensorProto.INT32)],
        False,
    ),
    "ArgMax next to probabilities": ([BEST], [named("p", TensorProto.FLOAT), named("k", TensorProto.INT64)], False),
    "TopK": ([node("TopK", "p two", "best places")], [named("best", 1), named("places", TensorProto.INT64)], False),
    "names gathered": ([BEST, node("Gather", "names k", "word")], [named("word", TensorProto.STRING)], True),
    "names extracted": ([BEST, EXTRACT], [named("word", TensorProto.STRING)], True),
    "names encoded": ([BEST, LABELS], [named("word", TensorProto.STRING)], True),
    "logits and probabilities": ([], [named("z", TensorProto.FLOAT), named("p", TensorProto.FLOAT)], False),
}


@pytest.mark.parametrize("name", TAILS)
def test_tails_are_cut_off_and_their_labels_kept(name, tmp_path):
    nodes, outputs, labelled = TAILS[name]
    body = [
        STEM,
        node("GlobalAveragePool", "s", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f dense", "z", transB=1),
    ]
    stored = STORED | {"minus": np.array([-1]), "two": np.array([2])}
    plain = made([*body, node("Softmax", "z", "y")], SHAPE, stored)
    it = made([*body, node("Softmax", "z", "p"), *nodes], SHAPE, stored)
    it.graph.initializer.append(helper.make_tensor("names", TensorProto.STRING, [2], [b"cat", b"dog"]))
    del it.graph.output[:]
    it.graph.output.extend(outputs)
    read = read_onnx(saved(it, tmp_path))
    assert read.labels == (("cat", "dog") if labelled else ("class 0", "class 1"))
    assert (read.task.ending, read.facts["onnx"]["dropped"]) == ("softmax", "Softmax")
    bare = from_onnx(it)
    x = random(*SHAPE)
    logits = reference.answer(bare.graph, bare.weights, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), answer(plain, x), atol=1e-6)  # of probability


# constants, half precision, open sizes


def test_constants_made_of_nothing():
    nodes = [
        node("ConstantOfShape", "shape", "k", value=numpy_helper.from_array(np.array([0.02], np.float32))),
        node("Conv", "s k", "m"),
    ]
    checked(model(*nodes, stored={"shape": np.array([4, 4, 1, 1])}), SHAPE)


def test_half_precision_throughout():
    """Every number of 16 bits: answers agree to what 11 bits of a mantissa hold."""
    half = {key: value.astype(np.float16) for key, value in (STORED | {"low": random(), "high": random() + 2}).items()}
    half |= {"low": np.float16(0), "high": np.float16(6)}
    it = made([STEM, node("Clip", "s low high", "m"), *head()], SHAPE, half, kind=TensorProto.FLOAT16)
    it.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    read = from_onnx(it)
    assert kinds(read.graph)[1] == "relu6"
    x = random(*SHAPE).astype(np.float16)
    got = reference.answer(read.graph, read.weights, x.astype(np.float64).transpose(0, 2, 3, 1))
    assert output_error(got, answer(it, x).astype(np.float64)) < 2**-9


def test_channels_left_open():
    assert from_onnx(model(node("Relu", "s", "m"), sides=["N", "C", 5, 6])).graph.input_shape == (5, 6, 3)


def test_an_input_without_a_shape():
    it = model(node("Relu", "s", "m"))
    it.graph.input[0].type.tensor_type.ClearField("shape")
    assert from_onnx(it, resolution=(5, 6)).graph.input_shape == (5, 6, 3)
    with pytest.raises(FileError, match="any height and width"):
        from_onnx(it)


def test_a_file_for_a_batch_of_several():
    nodes = [node("Reshape", "s apart", "a"), node("Relu", "a", "b"), node("Reshape", "b back", "m")]
    stored = {"apart": np.array([8, 4, 30]), "back": np.array([8, 4, 5, 6])}
    many = made([STEM, *nodes, *head()], [8, 3, 5, 6], STORED | stored)
    x = random(8, 3, 5, 6)
    read = from_onnx(many)
    got = reference.answer(read.graph, read.weights, x.transpose(0, 2, 3, 1))
    assert output_error(got, answer(many, x)) < TOLERANCE


def test_data_of_a_constant_beside_the_model(tmp_path):
    it = model(node("Relu", "s", "m"))
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(STORED["w"]))
    stored = constant.attribute[0].t
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(stored.raw_data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="weights/w.bin")
    del it.graph.initializer[0]
    it.graph.node.append(constant)
    np.testing.assert_array_equal(read_onnx(saved(it, tmp_path)).weights["Conv_s.weight"], STORED["w"])


@pytest.mark.parametrize("text", ["5x7", "5X7"])
def test_height_and_width_from_the_command_line(smallcnn, refused, tmp_path, text):
    path, out = saved(model(node("Relu", "s", "m"), sides=["N", 3, "H", "W"]), tmp_path), tmp_path / "m.safetensors"
    assert "in --resolution 224x224" in refused("import", path, "--out", out)
    assert smallcnn("import", path, "--resolution", text, "--out", out)[0] == 0
    assert load(out).graph.input_shape == (5, 7, 3)
    for wrong in ("0", "5x", "5x7x3", "-5", "5x0", "five"):
        assert "as in 48x192" in refused("import", path, "--resolution", wrong, "--out", out)


def test_capital_suffixes(smallcnn, refused, tmp_path):
    path, out = saved(model(node("Relu", "s", "m")), tmp_path, "NET.ONNX"), tmp_path / "m.safetensors"
    assert smallcnn("import", path, "--out", out)[0] == 0
    assert "holds the weights of NET.ONNX; give that file" in refused(
        "import", tmp_path / "NET.ONNX.DATA", "--out", out
    )
    assert "import it with: smallcnn import" in refused("predict", path, tmp_path / "x.png")
    capital = out.rename(tmp_path / "M.SAFETENSORS")
    assert smallcnn("export", capital, "--to", "onnx", "--out", tmp_path / "m.onnx")[0] == 0
