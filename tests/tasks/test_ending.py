"""The ending belongs to the model: what a file's last sigmoid or softmax means is the same in every engine and file."""

import json
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from artifacts import artifact
from networks import random_weights, tiny
from smallcnn import runtime
from smallcnn.errors import DataError, ExportError, FileError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.onnx import export, read_onnx, to_onnx
from smallcnn.reference import floating as reference
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import measure
from smallcnn.transform.logits import to_logits, two_classes

SIDE = 12
PLAIN = Preprocessing((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3)


def foreign(path, ends, classes, opset=17, pool=True):
    """An ONNX file of another program: conv, mean, Gemm, and then `ends`, each (kind, attributes, constant or None)."""
    rng = np.random.default_rng(0)
    stored = {"w": rng.standard_normal((6, 3, 3, 3)), "m": 3 * rng.standard_normal((classes, 6)),
              "b": rng.standard_normal(classes)}  # fmt: skip
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["g"])]
    nodes += [helper.make_node("Flatten", ["g"], ["v"]), helper.make_node("Gemm", ["v", "m", "b"], ["t0"], transB=1)]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items()]
    for i, (kind, attributes, constant) in enumerate(ends):
        inputs = [f"t{i}"]
        if constant is not None:
            constants.append(numpy_helper.from_array(np.array(constant), f"k{i}"))
            inputs.append(f"k{i}")
        nodes.append(helper.make_node(kind, inputs, [f"t{i + 1}"], **attributes))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info(f"t{len(ends)}", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def in_onnxruntime(path, image):
    """What ONNX Runtime answers with the file's own input: (outputs,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    value = (image[None] / np.float32(255)).transpose(0, 3, 1, 2).astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: value})[0].reshape(-1)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def taken_over(path):
    """The file as an artifact that takes bytes / 255, as `in_onnxruntime` does."""
    model = read_onnx(path)
    return Model(model.graph, model.weights, model.task, PLAIN, model.facts)


SIGMOID = ("Sigmoid", {}, None)
ENDINGS = {
    "sigmoid": ([SIGMOID], 4, "sigmoid"),
    "sigmoid, then reshaped": ([SIGMOID, ("Reshape", {}, [1, 2, 2]), ("Flatten", {}, None)], 4, "sigmoid"),
    "sigmoid, then the same": ([SIGMOID, ("Identity", {}, None), ("Identity", {}, None)], 4, "sigmoid"),
    "one sigmoid": ([SIGMOID], 1, "softmax"),
    "one sigmoid, then reshaped": ([SIGMOID, ("Reshape", {}, [-1])], 1, "softmax"),
    "softmax": ([("Softmax", {"axis": 1}, None)], 4, "softmax"),
    "softmax, then reshaped": ([("Softmax", {"axis": -1}, None), ("Reshape", {}, [1, 4, 1])], 4, "softmax"),
    "logits": ([], 4, "softmax"),
    "hard sigmoid": ([("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, None)], 4, "none"),
    "one number": ([], 1, "none"),
    "a sigmoid in per cent": ([SIGMOID, ("Mul", {}, np.float32(100))], 4, "none"),
    "what is left to 1": ([SIGMOID, ("Mul", {}, np.float32(-1)), ("Add", {}, np.float32(1))], 1, "none"),
    "bounded": ([("Relu", {}, None), ("Min", {}, np.float32(1))], 3, "none"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_file_s_ending_becomes_the_model_s(tmp_path, image, case):
    ends, classes, ending = ENDINGS[case]
    path = foreign(tmp_path / "f.onnx", ends, classes)
    wanted = in_onnxruntime(path, image)
    if case == "logits":
        wanted = np.exp(wanted) / np.exp(wanted).sum()
    model = taken_over(path)
    assert model.task.ending == ending
    save(model, tmp_path / "m.safetensors")
    seen = runtime.open(tmp_path / "m.safetensors").classify_prepared(image)
    if "one sigmoid" in case:
        assert model.labels == ("class 0", "class 1")
        wanted = np.array([1 - wanted[0], wanted[0]])
    order = np.argsort(-wanted)
    assert [label for label, _ in seen.top5] == [model.labels[i] for i in order]
    # float32, and inputs that are scaled in another order of operations
    np.testing.assert_allclose([value for _, value in seen.top5], wanted[order], rtol=0, atol=1e-5)


def test_log_softmax_gives_the_probabilities_that_it_is_the_logarithm_of(tmp_path, image):
    path = foreign(tmp_path / "f.onnx", [("LogSoftmax", {"axis": 1}, None)], 4)
    save(taken_over(path), tmp_path / "m.safetensors")
    seen = runtime.open(tmp_path / "m.safetensors").classify_prepared(image)
    assert seen.probability == pytest.approx(np.exp(in_onnxruntime(path, image).max()), abs=1e-5)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_softmax_over_another_axis_is_refused(tmp_path, axis):
    path = foreign(tmp_path / "f.onnx", [("Reshape", {}, [1, 4, 1]), ("Softmax", {"axis": axis}, None)], 4)
    with pytest.raises(FileError, match="not all classes"):
        read_onnx(path)


def test_a_part_of_a_softmax_is_refused(tmp_path):
    path = foreign(tmp_path / "f.onnx", [("Softmax", {"axis": 1}, None), ("Gather", {"axis": 1}, [1, 2])], 4)
    with pytest.raises(FileError, match="takes part of the result of Softmax"):
        read_onnx(path)


def test_a_part_of_independent_labels_is_read(tmp_path, image):
    path = foreign(tmp_path / "f.onnx", [SIGMOID, ("Gather", {"axis": 1}, [1, 2])], 4)
    model = taken_over(path)
    save(model, tmp_path / "m.safetensors")
    seen = runtime.open(tmp_path / "m.safetensors").classify_prepared(image)
    assert model.task.ending == "sigmoid"
    np.testing.assert_allclose(sorted(value for _, value in seen.top5), sorted(in_onnxruntime(path, image)), atol=1e-5)


def test_averaged_sigmoids_are_scores():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3)
    graph = g.graph(g.global_pool(g.activation(g.conv(x, 3), "sigmoid")), features=x, name="averaged")
    assert to_logits(graph, random_weights(graph))[2] == "none"


def with_ending(ending, classes=3, seed=0):
    made = artifact(seed=seed) if classes == 3 else artifact(narrow(classes))
    return Model(made.graph, made.weights, Classification(made.labels, ending), made.preprocessing, made.facts)


def narrow(classes):
    g = Builder(input=(8, 8, 3))
    return g.graph(g.dense(g.global_pool(g.conv(g.input, 4, kernel=3)), classes), name="narrow")


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("kind", [".safetensors", ".onnx", "probabilities.onnx", ".so"])
def test_every_kind_of_file_and_engine_agrees(tmp_path, ending, kind):
    model = with_ending(ending)
    path = tmp_path / f"m{kind}"
    engines = ["onnxruntime", "openvino"]
    if kind == ".safetensors":
        save(model, path)
        engines.append("torch")
    elif kind == ".so":
        pytest.importorskip("halide")
        from smallcnn.compiler.compiling import compile_file

        compile_file(model, path)
        engines = ["compiled"]
    elif kind == "probabilities.onnx" and ending == "none":
        with pytest.raises(ExportError, match="gives scores"):
            export(model, path, probabilities=True)
        return
    else:
        export(model, path, probabilities=kind.startswith("probabilities"))
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    z = reference.answer(model.graph, model.weights, model.preprocessing.normalise(image[None]))[0]
    wanted = {"softmax": np.exp(z) / np.exp(z).sum(), "sigmoid": 1 / (1 + np.exp(-z)), "none": z}[ending]
    for engine in engines:
        if engine != "compiled" and find_spec(engine) is None:
            continue
        net = runtime.open(path, engine=engine, threads=1)
        assert net.ending == ending
        seen = net.classify_prepared(image)
        order = np.argsort(-wanted)
        assert [label for label, _ in seen.top5] == [model.labels[i] for i in order]
        np.testing.assert_allclose([value for _, value in seen.top5], wanted[order], rtol=1e-5, atol=1e-5)
        assert seen.present == (tuple(one for one in seen.top5 if one[1] >= 0.5) if ending == "sigmoid" else ())


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "none"])
def test_an_exported_file_reads_back_as_the_model(tmp_path, ending):
    model = with_ending(ending)
    for name, probabilities in (("l.onnx", False), ("p.onnx", True)):
        if ending == "none" and probabilities:
            continue
        export(model, tmp_path / name, probabilities=probabilities)
        again = read_onnx(tmp_path / name)
        assert again.task == model.task
        assert isinstance(again.graph.nodes[-1].op, type(model.graph.nodes[-1].op))
        last = onnx.load(tmp_path / name).graph.node[-1].op_type
        assert last == (ending.capitalize() if probabilities else "Identity")


def test_a_file_of_format_1_without_an_ending_is_one_of_softmax(tmp_path):
    import safetensors
    import safetensors.numpy

    save(with_ending("sigmoid"), tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    assert json.loads(metadata.pop("smallcnn.task"))["ending"] == "sigmoid"
    metadata |= {"smallcnn.format": "1", "smallcnn.labels": '["a", "b", "c"]'}
    safetensors.numpy.save_file(tensors, tmp_path / "old.safetensors", metadata)
    assert load(tmp_path / "old.safetensors").task == Classification(("a", "b", "c"), "softmax")
    safetensors.numpy.save_file(tensors, tmp_path / "odd.safetensors", metadata | {"smallcnn.ending": "tanh"})
    with pytest.raises(FileError, match="its ending is 'tanh'; there are softmax, sigmoid, none"):
        load(tmp_path / "odd.safetensors")


def last_layers():
    """Networks with one logit, which is made in different ways."""
    made = []
    for kind in ("dense", "conv", "conv, relu, mean", "conv, norm, mean", "sum", "dense, norm", "clip", "flatten"):
        g = Builder(input=(8, 8, 3))
        x = g.conv(g.input, 4, kernel=3)
        if kind == "dense":
            y = g.dense(g.global_pool(x), 1)
        elif kind == "dense, norm":
            y = g.batch_norm(g.dense(g.global_pool(x), 1, bias=False))
        elif kind == "conv":
            y = g.flatten(g.conv(x, 1, kernel=x.shape[0], padding=((0, 0), (0, 0))))
        elif kind == "conv, relu, mean":
            y = g.global_pool(g.activation(g.conv(x, 1), "leaky_relu"))
        elif kind == "conv, norm, mean":
            y = g.global_pool(g.activation(g.batch_norm(g.conv(x, 1)), "hard_swish"))
        elif kind == "sum":
            v = g.global_pool(x)
            y = g.add(g.dense(v, 1), g.dense(g.activation(v, "relu"), 1))
        elif kind == "clip":
            y = g.clip(g.dense(g.global_pool(x), 1), -1.0, 1.5)
        else:
            y = g.flatten(g.max_pool(g.conv(x, 1), kernel=x.shape[0], stride=1, padding=((0, 0), (0, 0))))
        made.append(pytest.param(g.graph(y, features=x, name="one"), id=kind))
    return made


@pytest.mark.parametrize("graph", last_layers())
def test_one_logit_becomes_two_whatever_the_last_layer_is(graph: Graph):
    weights = random_weights(graph)
    batch = np.random.default_rng(2).standard_normal((3, 8, 8, 3))
    z = reference.answer(graph, weights, batch)
    again, widened = two_classes(graph, weights)
    got = reference.answer(again, widened, batch)
    np.testing.assert_array_equal(got[:, 0], 0)
    np.testing.assert_allclose(got[:, 1:], z, rtol=1e-12)  # float64 sums in another order


def test_two_classes_takes_one_number_only():
    with pytest.raises(GraphError, match="not one number"):
        two_classes(tiny(), random_weights(tiny()))


def test_a_sigmoid_that_something_else_reads_is_not_the_ending():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3)
    gate = g.activation(g.dense(g.global_pool(x), 4), "sigmoid")
    graph = g.graph(g.concat(gate, g.global_pool(g.scale(x, gate))), features=g.input, name="both")
    assert to_logits(graph, random_weights(graph))[2] == "none"  # half of it is between 0 and 1


def test_a_sigmoid_is_read_behind_what_moves_it():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3)
    moved = g.flatten(g.activation(g.conv(x, 2, kernel=8, padding=((0, 0), (0, 0))), "sigmoid"))
    graph = g.graph(g.concat(moved, g.activation(g.dense(moved, 3), "sigmoid")), features=x, name="behind")
    weights = random_weights(graph)
    same, _, ending = to_logits(graph, weights)
    assert (same, ending) == (graph, "none")


def test_several_sigmoids_joined_are_independent_labels():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3)
    v = g.global_pool(x)
    heads = [g.activation(g.dense(v, 1), "sigmoid") for _ in range(3)]
    graph = g.graph(g.concat(*heads), features=x, name="heads")
    weights = random_weights(graph)
    without, same, ending = to_logits(graph, weights)
    batch = np.random.default_rng(2).standard_normal((3, 8, 8, 3))
    z = reference.answer(without, same, batch)
    assert ending == "sigmoid"
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), reference.answer(graph, weights, batch), rtol=1e-12)


def test_the_loss_of_each_ending():
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.standard_normal((20, 5)), rng.integers(0, 5, 20)
    z, y = torch.tensor(logits), torch.tensor(labels)
    assert measure(logits, labels).loss == pytest.approx(float(F.cross_entropy(z, y)))
    each = F.binary_cross_entropy_with_logits(z, F.one_hot(y, 5).double())
    assert measure(logits, labels, "sigmoid").loss == pytest.approx(float(each))
    assert np.isnan(measure(logits, labels, "none").loss)


@pytest.mark.parametrize(("case", "says"), [
    ("sigmoid", "its labels are independent: each has its own probability"),
    ("one sigmoid", "its only output, a sigmoid, is the probability of 'class 1'; the rest is"),
    ("hard sigmoid", "its outputs are scores, not probabilities"),
    ("softmax", ""),
    ("logits", ""),
])  # fmt: skip
def test_importing_says_what_it_took_the_ending_for(smallcnn, tmp_path, case, says):
    ends, classes, _ = ENDINGS[case]
    path = foreign(tmp_path / "f.onnx", ends, classes)
    code, _, err = smallcnn("import", path, "--out", tmp_path / "m.safetensors")
    assert code == 0
    assert says in err
    assert ("its labels are" in err or "its o" in err) == bool(says)


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_predict_prints_what_each_ending_means(smallcnn, tmp_path, photo):
    said, records = {}, {}
    for ending in ("softmax", "sigmoid", "none"):
        save(with_ending(ending), tmp_path / f"{ending}.safetensors")
        said[ending] = smallcnn("predict", tmp_path / f"{ending}.safetensors", photo)[1]
        (records[ending],) = json.loads(smallcnn("predict", tmp_path / f"{ending}.safetensors", photo, "--json")[1])
    assert "(then" in said["softmax"]
    assert "%" in said["softmax"]
    assert "%" in said["sigmoid"]
    assert "(then" not in said["sigmoid"]
    assert "%" not in said["none"]
    assert sum(one["probability"] for one in records["softmax"]["top5"]) == pytest.approx(1)
    assert all(one in records["sigmoid"]["top5"] for one in records["sigmoid"]["present"])
    assert records["none"]["score"] == records["none"]["top5"][0]["score"]
    assert "probability" not in records["none"]
    assert "present" not in records["softmax"]


def test_no_label_reaches_half(smallcnn, tmp_path, photo):
    made = with_ending("sigmoid")
    weights = dict(made.weights) | {"classifier.bias": np.full(3, -50, np.float32)}
    save(
        Model(made.graph, weights, Classification(made.labels, "sigmoid"), made.preprocessing),
        tmp_path / "m.safetensors",
    )
    assert "no label reaches 50%; highest: " in smallcnn("predict", tmp_path / "m.safetensors", photo)[1]


def test_a_teacher_ends_in_a_softmax(tmp_path):
    pytest.importorskip("torch")
    import torch

    from smallcnn.train.teacher import Teacher

    save(with_ending("sigmoid"), tmp_path / "t.safetensors")
    with pytest.raises(DataError, match=r"its ending is sigmoid; a teacher must end in a softmax"):
        Teacher(tmp_path / "t.safetensors", ("blue", "green", "red"), 3, torch.device("cpu"))


def test_exported_probabilities_stop_at_the_right_operator():
    assert to_onnx(with_ending("sigmoid"), probabilities=True).graph.node[-1].op_type == "Sigmoid"
