"""Makes runtimes.json: what LiteRT and Keras answer on the real files of the shared folder: python make_runtimes.py

With ai-edge-litert, Keras 3 with any backend, and the shared folder; the tests need the latter only.
"""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"
IMAGES = SHARED / "data" / "imagenet_val_650.tar"
SMALL = SHARED / "data" / "cifar10_lossless_4000train_500test.npz"
EVERY = 10
"""Of the 650 images, one in so many."""
KEPT = 0.875
"""The part of the shorter side."""

TFLITE = (
    "weights/mobilenet_v1_0.25_128_quant.tflite",
    "weights/mobilenet_v1_0.25_224_float.tflite",
    "weights/mobilenet_v1_0.5_160_quant.tflite",
    "weights/mobilenet_v1_0.75_192_quant.tflite",
    "weights/mobilenet_v2_1.0_224_quant.tflite",
    "weights/resnet8_cifar10_int8.tflite",
    "weights/vww_96_int8.tflite",
    "cases/mcunet_imagenet_144_int8.tflite",
    "cases/tfsupport_automl_labeler_model.tflite",
    "cases/tfsupport_mobilenet_v1_0.25_224_quant.tflite",
)
KERAS = "cases/fer2013_mini_XCEPTION.102-0.66.hdf5"


def images(size: tuple[int, int]):
    """Every tenth image's centre, scaled: bytes (height, width, 3). Those of 32x32 are CIFAR-10's."""
    if size == (32, 32):
        yield from np.load(SMALL)["x_test"][:100]
        return
    with tarfile.open(IMAGES) as archive:
        members = [member for member in archive.getmembers() if member.name.lower().endswith((".jpg", ".jpeg"))]
        for member in members[::EVERY]:
            image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
            side = min(image.size) * KEPT
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            yield np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box))


def grey() -> np.ndarray:
    """Two patterns of bytes (64, 64, 1)."""
    return np.stack([np.arange(4096).reshape(64, 64, 1) * factor % 256 for factor in (1, 7)]).astype(np.uint8)


def litert(path: Path) -> dict[str, list]:
    """The classes with the highest score of each image, as 8 bits may not tell them apart.

    For a float file also the probabilities of the five likeliest of the first four images.
    """
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(str(path), num_threads=1)
    runtime.allocate_tensors()
    source, answer = runtime.get_input_details()[0], runtime.get_output_details()[0]
    classes, likeliest = [], []
    for image in images(tuple(map(int, source["shape"][1:3]))):
        given = {np.uint8: image, np.int8: image.astype(np.int16) - 128, np.float32: image / 127.5 - 1}[source["dtype"]]
        runtime.set_tensor(source["index"], given.astype(source["dtype"])[None])
        runtime.invoke()
        scores = runtime.get_tensor(answer["index"]).reshape(-1)
        classes.append(np.flatnonzero(scores == scores.max()).tolist())
        if answer["dtype"] == np.float32 and len(likeliest) < 4:
            likeliest.append([[int(i), float(scores[i])] for i in scores.argsort()[:-6:-1]])
    return {"classes": classes} | ({"likeliest": likeliest} if likeliest else {})


def keras(path: Path) -> list[list[float]]:
    """Probabilities of the two patterns, scaled to -1..1."""
    from keras.models import load_model

    from keras import ops

    return ops.convert_to_numpy(load_model(path, compile=False)(grey() / np.float32(127.5) - 1)).tolist()


def main() -> None:
    said = {name: litert(SHARED / name) for name in TFLITE} | {KERAS: keras(SHARED / KERAS)}
    (Path(__file__).parent / "runtimes.json").write_text(json.dumps(said))


if __name__ == "__main__":
    sys.exit(main())
