"""Whole numbers on grids and several outputs: our files and other programs'."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from anything import Anything, any_task
from networks import every_integer, every_number
from onnx_files import STEM, STORED, answer, defined, head, made, node, random
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.model.probe import output_error, probe_answer, probe_image, relative_error
from smallcnn.onnx import export, from_onnx, read_onnx, to_onnx
from smallcnn.reference import floating as reference
from smallcnn.tasks import kinds
from smallcnn.transform.fold import fold

TOLERANCE = 1e-5  # as in `onnx_files`


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(kinds.TASKS, "anything", Anything)
    return any_task(every_number())


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_every_number_in_onnx_runtime(model, level, tmp_path):
    assert export(model, tmp_path / "m.onnx") < TOLERANCE
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options)
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", "codes"]
    image = probe_image(model.graph.input_shape)
    got = dict(zip(names, (value[0] for value in session.run(None, {"images": image})), strict=True))
    assert {name: (value.dtype, value.shape) for name, value in got.items()} == {
        "logits": (np.float32, (5,)),
        "codes": (np.uint8, (3, 5, 8)),
    }
    wanted = probe_answer(model.graph, model.weights, model.preprocessing)
    assert relative_error(got, wanted) < TOLERANCE


def test_every_number_comes_back_as_the_same_network(model, tmp_path):
    export(model, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    graph, weights = fold(model.graph, model.weights)
    kept = [n for n in graph if not isinstance(n.op, ops.Dropout)]
    layers, wanted = (  # without a flatten and the dequantize after it: read the other way round
        {n.name: (n.op.kind, n.tensor) for n in nodes if n.op.kind != "flatten" and n.name != "q.real"}
        for nodes in (read.graph, kept)
    )
    assert layers == wanted
    assert read.graph.outputs == (graph.outputs[0], type(graph.outputs[1])("codes", "q.pad"))
    for name in ("q.conv.weight", "q.dense.weight"):  # as they are stored, not the real numbers
        np.testing.assert_array_equal(read.weights[name], weights[name], strict=True)
    for name in ("q.conv", "q.dense"):  # scales in float32, as the definition uses them
        got, wanted = read.graph[name].op, graph[name].op
        assert (got.number, got.grid.zero) == (wanted.number, wanted.grid.zero)
        np.testing.assert_array_equal(np.float32(got.grid.scale), np.float32(wanted.grid.scale))
    got, wanted = (probe_answer(net.graph, net.weights, net.preprocessing) for net in (read, model))
    assert relative_error(got, wanted) < TOLERANCE


def test_weights_are_stored_in_their_own_type(model):
    file = to_onnx(model)
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    assert (stored["q.conv.weight"].data_type, stored["q.dense.weight"].data_type) == (
        TensorProto.INT8,
        TensorProto.UINT8,
    )
    back = next(n for n in file.graph.node if n.output[0] == "q.conv.weight.real")
    assert (back.op_type, [(a.name, a.i) for a in back.attribute]) == ("DequantizeLinear", [("axis", 0)])


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_file_that_onnx_runtime_quantized(per_channel, tmp_path):
    """Weights and activations on grids, biases of int32; the judge runs its operators as they are written."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    nodes = [STEM, node("Relu", "s", "r"), node("MaxPool", "r", "m", kernel_shape=[2, 2]), *head("m")]
    (tmp_path / "float.onnx").write_bytes(made(nodes, [1, 3, 5, 6], STORED).SerializeToString())

    class Images(quantization.CalibrationDataReader):
        left = iter([{"x": random(1, 3, 5, 6, seed=seed)} for seed in range(4)])

        def get_next(self):
            return next(self.left, None)

    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "m.onnx", Images(), per_channel=per_channel,
        weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    content = (tmp_path / "m.onnx").read_bytes()
    read = from_onnx(onnx.ModelProto.FromString(content))
    (conv,) = (n for n in read.graph if isinstance(n.op, ops.Conv))
    assert (conv.op.number, len(conv.op.grid.scale)) == ("int8", 4 if per_channel else 1)
    assert read.weights[f"{conv.name}.weight"].dtype == np.int8
    assert sum(isinstance(n.op, ops.Quantize) for n in read.graph) > 2
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = random(1, 3, 5, 6, seed=9)
    (wanted,) = onnxruntime.InferenceSession(content, options).run(None, {"x": x})
    got = defined(read, x.transpose(0, 2, 3, 1))
    assert output_error(got, wanted) < TOLERANCE


def two_outputs():
    nodes = [STEM, node("Relu", "s", "map"), *head("map")]
    return made(nodes, [1, 3, 5, 6], STORED, outputs=("y", "map"))


def test_several_outputs_of_another_program():
    model, x = two_outputs(), random(1, 3, 5, 6)
    read = from_onnx(model)
    got = reference.run(read.graph, read.weights, x.transpose(0, 2, 3, 1))
    assert list(got) == ["y", "map"]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y, plane = session.run(["y", "map"], {"x": x})
    assert output_error(got["y"], y) < TOLERANCE
    assert output_error(got["map"], plane.transpose(0, 2, 3, 1)) < TOLERANCE


def test_a_classifier_has_one_output(tmp_path):
    (tmp_path / "m.onnx").write_bytes(two_outputs().SerializeToString())
    with pytest.raises(FileError, match=r"m has 2 outputs \(y, map\), not one"):
        read_onnx(tmp_path / "m.onnx")


def test_an_image_of_bytes_that_is_dequantized():
    nodes = [node("DequantizeLinear", "x q z", "a"), node("Conv", "a w", "m"), *head("m")]
    stored = STORED | {"q": np.float32(1 / 64), "z": np.uint8(128)}
    model = made(nodes, [1, 3, 5, 6], stored, kind=TensorProto.UINT8)
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 6), np.uint8)
    read = from_onnx(model)
    np.testing.assert_allclose(read.entry.scale, 1 / 64)
    np.testing.assert_allclose(read.entry.shift, -2)
    got = defined(read, read.entry.of(x.transpose(0, 2, 3, 1)))
    assert output_error(got, answer(model, x)) < TOLERANCE


Q = {
    "q": np.float32(0.02),
    "z": np.uint8(3),
    "q2": np.float32(0.03),
    "zero": np.uint8(9),
    "p": np.array([0, 0, 1, 1] * 2),
}
REFUSED = {
    "two scales": ([node("QuantizeLinear", "s v v4", "a"), node("DequantizeLinear", "a q z", "m")], "another scale"),
    "another grid": ([node("QuantizeLinear", "s q z", "a"), node("DequantizeLinear", "a q2 z", "m")], "another scale"),
    "codes added": ([node("QuantizeLinear", "s q z", "a"), node("Relu", "a", "m")], "needs float32, not uint8"),
    "codes cast": ([node("QuantizeLinear", "s q z", "a"), node("Cast", "a", "m", to=1)], "casts quantized numbers"),
    "a margin": (
        [node("QuantizeLinear", "s q z", "a"), node("Pad", "a p zero", "b"), node("DequantizeLinear", "b q z", "m")],
        "pads by constant",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    nodes, says = REFUSED[name]
    stored = STORED | Q | {"v": np.full(4, 0.1, np.float32), "v4": np.zeros(4, np.uint8)}
    with pytest.raises(FileError, match=says):
        from_onnx(made([STEM, *nodes, *head("m")], [1, 3, 5, 6], stored))


def test_a_margin_of_the_stored_zero():
    nodes = [
        STEM,
        node("QuantizeLinear", "s q z", "a"),
        node("Pad", "a p z", "b"),
        node("DequantizeLinear", "b q z", "m"),
    ]
    model, x = made([*nodes, *head("m")], [1, 3, 5, 6], STORED | Q), random(1, 3, 5, 6)
    read = from_onnx(model)
    got = defined(read, x.transpose(0, 2, 3, 1))
    assert output_error(got, answer(model, x)) < TOLERANCE


def test_every_integer_comes_back_as_the_same_network(tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.TASKS, "anything", Anything)
    model = any_task(every_integer())
    export(model, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    assert read.graph.integer
    names = {"logits": "classifier_real"}  # sums are dequantized by an operator that the file does not need
    wanted = [(names.get(node.name, node.name), node.op.kind, node.tensor) for node in model.graph]
    assert sorted((node.name, node.op.kind, node.tensor) for node in read.graph) == sorted(wanted)
    assert read.weights.keys() == model.weights.keys()
    for name, value in model.weights.items():
        np.testing.assert_array_equal(read.weights[name], value, strict=True)
    got, wanted = (probe_answer(net.graph, net.weights, net.preprocessing) for net in (read, model))
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, strict=True)
