"""`--fit`: what training and import choose is in the file, and every later command prepares images so."""

import json

import numpy as np
import onnxruntime
from PIL import Image

from artifacts import colour_photos
from smallcnn import open as open_model
from smallcnn.model import store


def test_train_then_export(smallcnn, tmp_path):
    photos = colour_photos(tmp_path / "photos")
    code, printed, _ = smallcnn(
        "train", "mobilenet_v1:width=0.25", "--data", photos, "--out", tmp_path / "run", "--epochs", 1,
        "--resolution", 32, "--fit", "letterbox",
    )  # fmt: skip
    assert code == 0
    best = printed.strip()
    preprocessing = store.load(best).preprocessing
    assert (preprocessing.size, preprocessing.fit, preprocessing.crop) == ((32, 32), "letterbox", 1.0)
    code, _, _ = smallcnn("export", best, "--out", tmp_path / "m.onnx")
    assert code == 0
    metadata = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["smallcnn.preprocessing"])["fit"] == "letterbox"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    code, printed, _ = smallcnn("predict", tmp_path / "m.onnx", tmp_path / "wide.png", "--json")
    assert code == 0
    square = np.full((32, 32, 3), 128, np.uint8)  # 16 x 40 becomes 12.8 x 32: rows 9.6 to 22.4, so 10 to 22
    square[10:22] = Image.fromarray(pixels).resize((32, 12), Image.Resampling.BILINEAR)
    logits = open_model(tmp_path / "m.onnx").logits(square[None])[0]
    shown = np.exp(logits - logits.max())
    np.testing.assert_allclose(json.loads(printed)[0]["probability"], shown.max() / shown.sum(), atol=1e-5)


def test_import(smallcnn, tmp_path):
    """A file of another program says nothing of fits: --fit does, and shows the whole image unless --crop is given."""
    photos = colour_photos(tmp_path / "photos", per_class=3)
    _, best, _ = smallcnn("train", "mobilenet_v1:width=0.25", "--data", photos, "--out", tmp_path / "run",
                          "--epochs", 1, "--resolution", 32)  # fmt: skip
    smallcnn("export", best.strip(), "--out", tmp_path / "m.onnx")
    for options, want in (([], ("crop", 1.0)), (["--fit", "stretch"], ("stretch", 1.0)),
                          (["--fit", "letterbox", "--crop", 0.9], ("letterbox", 0.9))):  # fmt: skip
        code, _, _ = smallcnn("import", tmp_path / "m.onnx", "--out", tmp_path / "m.safetensors", *options)
        assert code == 0
        preprocessing = store.load(tmp_path / "m.safetensors").preprocessing
        assert (preprocessing.fit, preprocessing.crop) == want
    code, _, error = smallcnn("import", tmp_path / "m.onnx", "--out", tmp_path / "m.safetensors", "--fit", "pad")
    assert code == 2
    assert "'pad' is not one of 'crop', 'stretch', 'letterbox'" in error
