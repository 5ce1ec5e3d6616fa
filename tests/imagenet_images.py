"""Real ImageNet validation images, and the accuracy of public networks on them, measured with other code."""

import csv
import io
import tarfile

import pytest

from shared_files import shared
from smallcnn.image import imagenet

# files, network, top-1, top-5 in per cent
CHECKPOINTS = [
    (["mobilenet_v1_0.25_128_quant.tflite"], "mobilenet_v1:width=0.25", 50.3, 76.5),
    (["mobilenet_v1_0.25_224_float.tflite"], "mobilenet_v1:width=0.25", 63.7, 86.5),
    (["mobilenet_v1_0.25_224_keras_bn_float32.npz"], "mobilenet_v1:width=0.25", 64.2, 87.1),
    (["mobilenet_v1_0.5_160_quant.tflite"], "mobilenet_v1:width=0.5", 67.8, 88.9),
    (["mobilenet_v1_0.75_192_quant.tflite"], "mobilenet_v1:width=0.75", 75.4, 93.1),
    (["mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", "mobilenet_v1_1.0_224_quant_head_layers.tflite"],
     "mobilenet_v1", 78.2, 95.5),
    (["squeezenet1.1_imagenet_float32.npz"], "squeezenet_1_1", 66.8, 89.1),
]  # fmt: skip


@pytest.fixture(scope="session")
def imagenet_images(tmp_path_factory):
    """The images in folders named by WordNet id, as ImageNet itself has them."""
    root = tmp_path_factory.mktemp("imagenet_val")
    with tarfile.open(shared("data/imagenet_val_650.tar")) as archive:
        content = {name.rpartition("/")[2]: archive.extractfile(name).read() for name in archive.getnames()}
    rows = list(csv.DictReader(io.StringIO(content["labels.csv"].decode())))
    assert len(rows) == 650
    for row in rows:
        assert list(imagenet.by_wnid())[int(row["label"])] == row["wnid"]
        (root / row["wnid"]).mkdir(exist_ok=True)
        (root / row["wnid"] / row["file"]).write_bytes(content[row["file"]])
    return root
