"""A network that answers with what is not a finite number is refused, never shown, compiled, exported or timed."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifacts import artifact
from smallcnn import onnx, runtime
from smallcnn.errors import AnswerError, FileError
from smallcnn.model import metadata
from smallcnn.model.kinds import read
from smallcnn.model.probe import TOLERANCE, output_error, probe_answer
from smallcnn.model.store import save

BROKEN = r"m\.safetensors: classifier\.bias has values that are infinite or not numbers"


def with_bias(value):
    made = artifact()
    bias = made.weights["classifier.bias"].copy()
    bias[1] = value
    return replace(made, weights=dict(made.weights) | {"classifier.bias": bias})


def negative_variance():
    """Finite weights whose answer is not a number."""
    made = artifact()
    return replace(made, weights=dict(made.weights) | {"stem.bn.running_var": np.full(4, -1, np.float32)})


def test_not_a_number_agrees_with_nothing():
    nan, one = np.array([np.nan, 1.0]), np.array([1.0, 1.0])
    for got, wanted in ((nan, one), (one, nan), (nan, nan), (one, np.array([np.inf, 1.0]))):
        assert not output_error(got, wanted) <= TOLERANCE
    assert output_error(one, one) <= TOLERANCE


def test_what_engines_take_for_zero_agrees_with_it():
    """Below 2^-126, the smallest normal number, an answer is as good as none; one a thousand times that is not."""
    assert output_error(np.zeros(2), np.array([2.0**-126, -1e-40])) <= TOLERANCE
    assert not output_error(np.zeros(2), np.array([2.0**-116, 0])) <= TOLERANCE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_command_names_the_weights_that_are_not_finite(refused, tmp_path, value):
    file, image = tmp_path / "m.safetensors", tmp_path / "a.png"
    save(with_bias(value), file)
    Image.new("RGB", (8, 8)).save(image)
    pytest.importorskip("halide")
    for command in (
        ["predict", file, image],
        ["compile", file, "--out", tmp_path / "m.so"],
        ["compile", file, "--out", tmp_path / "m.wasm", "--target", "wasm"],
        ["bench", file],
        ["bench", file, "--engine", "compiled"],
        ["export", file, "--out", tmp_path / "m.onnx"],
    ):
        said = refused(*command)
        assert "classifier.bias has values that are infinite or not numbers" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.safetensors"]


def test_an_answer_that_is_not_finite_is_refused_though_the_weights_are(refused, tmp_path):
    file, image = tmp_path / "m.safetensors", tmp_path / "a.png"
    broken = negative_variance()
    save(broken, file)
    Image.new("RGB", (8, 8)).save(image)
    assert refused("predict", file, image).endswith("its answer is not a finite number; the model is broken")
    assert "not a finite number" in refused("export", file, "--out", tmp_path / "m.onnx")
    with pytest.raises(AnswerError, match="its answer to the probe image is not a finite number"):
        probe_answer(broken.graph, broken.weights, broken.preprocessing)
    with pytest.raises(AnswerError):
        runtime.open(file).logits(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_file_that_says_its_right_answer_is_nan_is_refused(tmp_path):
    model = onnx.to_onnx(artifact())
    entries = metadata.describe(artifact(), answer={"logits": np.full(3, np.nan)})
    del model.metadata_props[:]
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="its answer to the probe image is not a finite number"):
        runtime.open(tmp_path / "m.onnx")


def test_the_others_are_answered_where_one_answer_is_not_finite(smallcnn, tmp_path):
    """Weights that overflow float32 on a white image and not on a black one."""
    made = artifact()
    weights = {name: 9 * np.abs(value) for name, value in made.weights.items()}
    weights |= {name: np.zeros_like(value) for name, value in weights.items() if name.endswith(("bias", "_mean"))}
    weights["classifier.weight"][:] = 3e38
    plain = replace(made.preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3)
    save(replace(made, weights=weights, preprocessing=plain), tmp_path / "m.safetensors")
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    code, out, err = smallcnn("predict", tmp_path / "m.safetensors", tmp_path / "white.png", tmp_path / "black.png")
    assert code == 2
    assert out.startswith(str(tmp_path / "black.png"))
    assert err.startswith(f"smallcnn: {tmp_path / 'white.png'}: ")
    assert len(err.splitlines()) == 1


def test_a_model_file_to_start_from_is_refused(tmp_path):
    save(with_bias(np.nan), tmp_path / "m.safetensors")
    with pytest.raises(FileError, match=BROKEN):
        read(tmp_path / "m.safetensors")
