"""Real files of others, which lie next to the repository: read, and their answers compared with ONNX Runtime's."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from shared_files import shared
from smallcnn.image.overrides import Overrides
from smallcnn.onnx import read_onnx
from smallcnn.reference import floating as reference
from smallcnn.tasks.ending import probabilities

FLOAT, HALF = 1e-5, 2e-4
"""Of probability: float32 sums over some thousand terms; sums of 16-bit numbers, of which each has 11 bits."""

FILES = [
    ("winml_SqueezeNet_fp16.onnx", "data_0", "softmaxout_1", None, HALF),
    ("winml_mnist_model_2.4MB.onnx", "image2", "prediction1", None, FLOAT),  # behind Core ML's scaler, before its tail
    ("paddle_PP_OCR_v2_cls.onnx", "x", "save_infer_model/scale_0.tmp_1", None, FLOAT),
    ("paddle_PP_OCR_v2_cls.onnx", "x", "save_infer_model/scale_0.tmp_1", (48, 192), FLOAT),
    ("light_squeezenet.onnx", "data_0", "softmaxout_1", None, FLOAT),
    ("light_inception_v1.onnx", "data_0", "prob_1", None, FLOAT),
]


def session(path, source, output, plane):
    """ONNX Runtime on the part of a file from `source` to `output`, for images of another size if `plane` says so."""
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in stored)
    if plane:
        for dim, size in zip(image.type.tensor_type.shape.dim[2:], plane, strict=True):
            dim.dim_value = size
    if image.name != source:
        kept = [node for node in model.graph.node if node.output[0] in {output, *needed(model, source, output)}]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        image.name = source
        del model.graph.output[:]
        model.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(output, 1, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def needed(model, source, output):
    """The results between two tensors."""
    made = {name: node for node in model.graph.node for name in node.output}
    found, ahead = set(), [output]
    while ahead:
        name = ahead.pop()
        if name != source and name in made and name not in found:
            found.add(name)
            ahead += made[name].input
    return found


@pytest.mark.parametrize(("name", "source", "output", "plane", "tolerance"), FILES)
def test_real_files_agree_with_onnx_runtime(name, source, output, plane, tolerance):
    path = shared(f"cases/{name}")
    read = read_onnx(path, Overrides(resolution=plane))
    assert plane in (None, read.graph.input_shape[:2])
    judge = session(path, source, output, plane)
    half = "float16" in judge.get_inputs()[0].type
    worst = 0.0
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256 >> 2 * seed, (1, *read.graph.input_shape), np.uint8)
        fed = read.preprocessing.normalise(pixels).astype(np.float16 if half else np.float32)
        (wanted,) = judge.run([output], {source: np.ascontiguousarray(fed.transpose(0, 3, 1, 2))})
        logits = reference.answer(read.graph, read.weights, fed.astype(np.float64))[0]
        worst = max(worst, np.abs(probabilities(logits, read.task.ending) - wanted.reshape(-1)).max())
    print(f"{name} {plane or ''}: {worst:.1e}")
    assert worst < tolerance


def test_labels_of_a_tail():
    read = read_onnx(shared("cases/winml_mnist_model_2.4MB.onnx"))
    assert read.labels == tuple("0123456789")


def test_the_page_lists_them():
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    table = page.split("## Other people's files, compared")[1].split("\n## ")[0]
    for name, *_ in FILES:
        assert f"`{name}`" in table
