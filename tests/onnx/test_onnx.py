import json

import numpy as np
import onnx
import onnxruntime
import pytest

from artifacts import artifact
from networks import dilated, every_op, resized, tiny
from smallcnn import Builder, zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import ExportError
from smallcnn.onnx import export, to_onnx
from smallcnn.onnx import write as export_module
from smallcnn.reference import floating as reference

# float32 sums over at most a few thousand terms, against float64: about 1e-7 * sqrt(terms)
TOLERANCE = 1e-5


def run(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def pictures(graph, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *graph.input_shape), np.uint8)


def wanted(model, batch):
    """Normalised as (x / 255 - mean) / std, then the plain definition of the network that was not folded."""
    prep = model.preprocessing
    return reference.answer(model.graph, model.weights, (batch / 255 - np.array(prep.mean)) / np.array(prep.std))


@pytest.mark.parametrize("graph", [
    every_op(), tiny(), dilated(), resized(), zoo.mobilenet_v1(width=0.25, resolution=65, classes=7),
    zoo.mobilenet_v1(width=0.25, small_input=True, resolution=32, classes=4, channels=1),
], ids=lambda graph: graph.name)  # fmt: skip
def test_the_file_computes_what_the_network_does(graph, tmp_path):
    model = artifact(graph)
    reported = export(model, tmp_path / "m.onnx")
    batch = pictures(graph, 3)
    got, expected = run(tmp_path / "m.onnx", batch), wanted(model, batch)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert 0 <= reported < TOLERANCE


def test_any_node_name_will_do(tmp_path):
    g = Builder(input=(8, 8, 3))
    x = g.activation(g.conv(g.input, 4, name="images"), "relu6", name="scale")
    x = g.shuffle(x, 2, name="probabilities")
    graph = g.graph(g.dense(g.global_pool(x, name="Transpose_0"), 3, name="logits"), features=x, name="names")
    assert export(artifact(graph), tmp_path / "m.onnx", probabilities=True) < TOLERANCE
    assert export(artifact(graph), tmp_path / "m.onnx") < TOLERANCE


def test_softmax_gives_probabilities(tmp_path):
    model = artifact()
    export(model, tmp_path / "m.onnx", probabilities=True)
    batch = pictures(model.graph)
    logits = wanted(model, batch)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", batch), expected, atol=1e-5)


def test_input_and_output_are_what_the_docs_say():
    model = to_onnx(artifact())
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert dims == ["N", 8, 8, 3]
    assert (logits.name, [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]) == (
        "logits",
        ["N", 3],
    )


def test_batch_norm_is_folded_and_nothing_else_is_stored():
    model = artifact(zoo.mobilenet_v1(width=0.25, resolution=64, classes=10))
    file = to_onnx(model)
    kinds = {node.op_type for node in file.graph.node}
    assert "BatchNormalization" not in kinds
    assert "Dropout" not in kinds
    stored = sum(int(np.prod(tensor.dims)) for tensor in file.graph.initializer)
    constants = 2 * 3 + 2  # scale and shift per channel; 0 and 6 of ReLU6
    assert 4 * (stored - constants) == profile(model.graph).weight_bytes


def test_metadata_makes_the_file_self_contained(tmp_path):
    model = artifact(origin="a test")
    export(model, tmp_path / "m.onnx")
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(found["smallcnn.task"])["labels"] == ["blue", "green", "red"]
    assert json.loads(found["smallcnn.facts"]) == {"origin": "a test"}
    assert json.loads(found["smallcnn.preprocessing"])["size"] == [8, 8]
    assert found["smallcnn.output"] == "logits"
    assert int(found["smallcnn.mult_adds"]) == 4 * 4 * (4 * 27 + 4 * 9) + 4 * 3  # stem, depthwise, dense of `tiny`


def test_a_wrong_export_is_refused_and_writes_nothing(tmp_path, monkeypatch):
    def broken(graph, weights):
        folded_graph, folded = real(graph, weights)
        return folded_graph, folded | {"stem.conv.bias": folded["stem.conv.bias"] + 0.01}

    real = export_module.fold
    monkeypatch.setattr(export_module, "fold", broken)
    with pytest.raises(ExportError, match=r"off by .* nothing written"):
        export(artifact(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_probe_picture_is_the_documented_sequence():
    from smallcnn.model.probe import probe_image

    expected = [(i * 2654435761 >> 13) & 255 for i in range(4 * 5 * 3)]
    assert probe_image((4, 5, 3)).reshape(-1).tolist() == expected
