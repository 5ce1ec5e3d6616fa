"""Networks that compute with whole numbers, in other programs' engines: on integer kernels, and as the definition."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest

from anything import Anything, any_task
from engine_layers import executed_by_onnx_runtime, executed_by_openvino
from networks import every_integer
from smallcnn.errors import ExportError
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.model.probe import INTEGER_TOLERANCE, probe_answer, probe_image
from smallcnn.onnx import export, to_onnx
from smallcnn.onnx import write as export_module
from smallcnn.tasks import kinds


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(kinds.TASKS, "anything", Anything)


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_every_integer_in_onnx_runtime(level, tmp_path):
    model = any_task(every_integer())
    assert export(model, tmp_path / "m.onnx") < INTEGER_TOLERANCE
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options)
    logits, codes = session.run(["logits", "codes"], {"images": probe_image(model.graph.input_shape)})
    wanted = probe_answer(model.graph, model.weights, model.preprocessing)
    assert codes.dtype == np.uint8
    assert np.abs(codes[0].astype(int) - wanted["codes"]).max() <= 1
    # the scales of this network are short decimals, so that many sums lie halfway between two bytes
    np.testing.assert_allclose(logits[0], wanted["logits"], rtol=0, atol=0.02 * np.abs(wanted["logits"]).max())


def test_onnx_runtime_computes_with_whole_numbers(tmp_path):
    """Left in float: the image before it is quantized, a sum of three, and two curves."""
    executed = Counter(executed_by_onnx_runtime(to_onnx(any_task(every_integer())).SerializeToString(), tmp_path))
    counts = {kind: executed[kind] for kind in executed if "Linear" in kind or kind in ("QGemm", "Conv", "Gemm")}
    assert counts == {
        "QLinearConv": 6, "QGemm": 2, "QLinearAveragePool": 1, "QLinearGlobalAveragePool": 1, "QLinearMul": 1,
        "QuantizeLinear": 4, "DequantizeLinear": 5,
    }  # fmt: skip


def test_openvino_computes_with_whole_numbers():
    """But for `gate`, as the zero of its weights is not 0: OpenVINO has no integer kernel for that."""
    pytest.importorskip("openvino")
    layers = executed_by_openvino(to_onnx(any_task(every_integer())).SerializeToString())
    found = [layer for layer in layers if layer.kind in ("Convolution", "FullyConnected", "Pooling", "Concatenation")]
    assert len(found) == 6 + 2 + 2 + 2
    assert [layer.names for layer in found if layer.number != "I8"] == ["gate,gating"]


def test_a_wrong_export_of_whole_numbers_is_refused(tmp_path, monkeypatch):
    def broken(graph, weights):
        graph, weights = real(graph, weights)
        return graph, weights | {"project.conv.weight": weights["project.conv.weight"][::-1]}

    real = export_module.fold
    monkeypatch.setattr(export_module, "fold", broken)
    with pytest.raises(ExportError, match=r"off by .* nothing written"):
        export(any_task(every_integer()), tmp_path / "m.onnx")


def test_a_result_of_sums_is_refused():
    g = Builder(input=(4, 4, 3))
    bytes_ = g.quantize(g.input, "uint8", scale=0.02, zero=128)
    sums = g.conv(bytes_, 2, number="int8", grid=Grid((0.01,), (0,)), name="sums")
    with pytest.raises(ExportError, match="the output logits of sums is whole sums, which ONNX has no form for"):
        to_onnx(any_task(g.graph(sums, features=sums, name="sums")))
