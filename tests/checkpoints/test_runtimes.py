"""Real files of TensorFlow Lite and Keras, read as they describe themselves, against their own runtimes' answers."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onnx_files import exact_sums
from shared_files import shared
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import FileError
from smallcnn.onnx.write import to_onnx
from smallcnn.reference.floating import answer as run
from smallcnn.tasks.ending import softmax

pytest.importorskip("tflite")

HERE = Path(__file__).parents[1] / "public_definitions"


@cache
def maker():
    spec = importlib.util.spec_from_file_location("make_runtimes", HERE / "make_runtimes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(name):
    return json.loads((HERE / "runtimes.json").read_text())[name]


def runner(made):
    """Logits of bytes (N, H, W, C), in float32."""
    import onnxruntime

    options = exact_sums()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(to_onnx(made).SerializeToString(), options)
    return lambda image: session.run(None, {session.get_inputs()[0].name: image[None]})[0][0]


@pytest.mark.parametrize("name", maker().TFLITE)
def test_tensorflow_lite(name, monkeypatch):
    """LiteRT multiplies sums by fixed-point numbers and rounds halves up: a step may tip the scales once in 65."""
    path = shared(name)
    monkeypatch.setattr(maker(), "IMAGES", shared("data/imagenet_val_650.tar"))
    monkeypatch.setattr(maker(), "SMALL", shared("data/cifar10_lossless_4000train_500test.npz"))
    answers = said(name)
    made = import_checkpoint([path], keep_background=True)
    compute = runner(made)
    logits = [compute(image) for image in maker().images(made.preprocessing.size)]
    agree = np.mean([scores.argmax() in labels for scores, labels in zip(logits, answers["classes"], strict=True)])
    assert agree >= 64 / 65
    for scores, likeliest in zip(logits, answers.get("likeliest", []), strict=False):
        for label, probability in likeliest:
            assert softmax(scores)[label] == pytest.approx(probability, abs=1e-5)
    assert "quant" in name or "int8" in name or "labeler" in name or "likeliest" in answers


def test_keras():
    made = import_checkpoint([shared(maker().KERAS)])
    got = softmax(run(made.graph, made.weights, made.preprocessing.normalise(maker().grey())))
    np.testing.assert_allclose(got, said(maker().KERAS), rtol=0, atol=1e-5)  # float32 of 50 layers


@pytest.mark.parametrize(("name", "reason"), [
    ("weights/mobilenet_v1_1.0_224_quant_head_layers.tflite", "takes (1, 1, 1, 1024), not one image"),
])  # fmt: skip
def test_what_is_no_classifier_has_its_reason(name, reason):
    with pytest.raises(FileError) as caught:
        import_checkpoint([shared(name)])
    assert reason in str(caught.value)


@pytest.mark.parametrize(("name", "model"), [
    ("cases/tflm_person_detect.tflite", "mobilenet_v1:width=0.25"),
    ("cases/tfsupport_mobilenet_v1_0.25_224_quant.tflite", "mobilenet_v1:width=0.25"),
    ("weights/vww_96_int8.tflite", "mobilenet_v1:width=0.25,activation=relu"),
])  # fmt: skip
def test_as_a_network_of_the_registry_it_computes_the_same(name, model):
    path = shared(name)
    own = import_checkpoint([path], keep_background=True, integer=False)
    known = import_checkpoint([path], model, keep_background=True)
    images = np.random.default_rng(0).integers(0, 256, (1, *own.graph.input_shape))
    got, want = (run(made.graph, made.weights, made.preprocessing.normalise(images)) for made in (known, own))
    np.testing.assert_allclose(got, want, rtol=0, atol=0.05)  # ends of ranges that are less than a step away are left


def test_the_person_detector_s_float_weights_by_kind():
    """MLPerf Tiny's: ReLU, convolutions with a bias, automatic names; its labels are no person, person."""
    path = shared("weights/vww96_mobilenet_v1_0.25_keras_bn_float32.npz")
    made = import_checkpoint([path], "mobilenet_v1:width=0.25,activation=relu")
    assert made.graph.name == "mobilenet_v1:width=0.25,activation=relu,bias=true"
    stored = np.load(path)
    np.testing.assert_array_equal(made.weights["classifier.weight"], stored["dense/kernel"].T)
    last = stored["depthwise_conv2d_12/depthwise_kernel"]
    np.testing.assert_array_equal(made.weights["block13.depthwise.conv.weight"][:, 0], last[..., 0].transpose(2, 0, 1))
