import re

import pytest

from smallcnn.checkpoints.catalogue import CATALOGUE, find
from smallcnn.errors import FileError
from smallcnn.zoo.registry import parse

each = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())


@each
def test_an_entry_is_complete(entry):
    assert CATALOGUE[entry.name] is entry
    assert re.fullmatch(r"[a-z0-9._]+", entry.name), "nothing a shell would touch"
    assert re.fullmatch(r"https://[a-z.]+/[\w./+-]+\.(pth|safetensors|tgz|tflite|h5)", entry.url)
    assert (entry.member is not None) == entry.url.endswith(".tgz")
    assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)
    assert entry.licence in ("Apache-2.0", "BSD-3-Clause", "MIT")
    assert "ImageNet-1k" in entry.origin
    assert entry.preprocessing.channels == 3
    if entry.top1 is not None:
        assert 39 < entry.top1 < (entry.top5 or 95) < 96


@each
def test_an_entry_names_a_network_here(entry):
    model = parse(entry.model)
    assert model.build(resolution=entry.preprocessing.size).output_shape == (1000,)


def test_names_and_files_are_unique():
    assert len({entry.url for entry in CATALOGUE.values()}) == len(CATALOGUE)
    hashes = [entry.sha256 for entry in CATALOGUE.values() if entry.sha256]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("ending", "count"),
    [("_torchvision", 12), ("_torchvision_v2", 2), ("_in1k", 9), (".in1k", 2), ("_quant_tflite", 17),
     ("_tflite", 16 + 22 + 17), ("_coral", 4), ("_keras", 16 + 22)],
)  # fmt: skip
def test_no_member_of_a_family_is_missing(ending, count):
    assert sum(name.endswith(ending) for name in CATALOGUE) == count


# Published numbers, read off the publishers' pages for a few of each family.
@pytest.mark.parametrize(
    ("name", "model", "side", "top1", "top5"),
    [
        ("mobilenet_v2_1.0_224_torchvision", "mobilenet_v2", 224, 71.878, 90.286),
        ("mobilenet_v2_1.0_224_torchvision_v2", "mobilenet_v2", 224, 72.154, 90.822),
        ("shufflenet_v2_2.0_torchvision", "shufflenet_v2:scale=2", 224, 76.230, 93.006),
        ("mobilenetv1_100.ra4_e3600_r224_in1k", "mobilenet_v1", 224, 75.388, 92.310),
        ("mobilenetv2_140.ra_in1k", "mobilenet_v2:width=1.4", 224, 76.528, 93.008),
        ("legacy_xception.tf_in1k", "xception", 299, 79.058, 94.396),
        ("mobilenet_v1_1.0_224_tflite", "mobilenet_v1", 224, 70.9, 89.9),
        ("mobilenet_v1_0.5_160_tflite", "mobilenet_v1:width=0.5", 160, 59.1, 81.9),
        ("mobilenet_v1_0.25_128_quant_tflite", "mobilenet_v1:width=0.25", 128, 39.5, 64.4),
        ("mobilenet_v1_1.0_224_quant_tflite", "mobilenet_v1", 224, 70.0, 89.0),
        ("mobilenet_v2_1.4_224_tflite", "mobilenet_v2:width=1.4", 224, 75.0, 92.5),
        ("mobilenet_v2_0.35_96_tflite", "mobilenet_v2:width=0.35", 96, 45.5, 70.4),
        ("mobilenet_v2_1.0_224_quant_tflite", "mobilenet_v2", 224, 70.8, 89.9),
        ("mobilenet_v1_1.0_224_keras", "mobilenet_v1", 224, 70.4, 89.5),
        ("mobilenet_v1_0.75_192_keras", "mobilenet_v1:width=0.75", 192, None, None),
        ("mobilenet_v2_1.3_224_keras", "mobilenet_v2:width=1.3", 224, 74.4, 92.1),
        ("mobilenet_v2_1.0_224_quant_coral", "mobilenet_v2", 224, None, None),
    ],
)
def test_published_numbers(name, model, side, top1, top5):
    entry = find(name)
    assert entry.model == model
    assert entry.preprocessing.size == (side, side)
    assert (entry.top1, entry.top5) == (top1, top5)


@pytest.mark.parametrize(
    ("name", "url", "member"),
    [
        ("mobilenet_v1_0.5_160_tflite",
         "https://storage.googleapis.com/download.tensorflow.org/models/mobilenet_v1_2018_02_22/mobilenet_v1_0.5_160.tgz",
         "mobilenet_v1_0.5_160.tflite"),
        ("mobilenet_v1_1.0_224_quant_tflite",
         "https://storage.googleapis.com/download.tensorflow.org/models/mobilenet_v1_2018_08_02/mobilenet_v1_1.0_224_quant.tgz",
         "mobilenet_v1_1.0_224_quant.tflite"),
        ("mobilenet_v2_0.35_96_tflite",
         "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_0.35_96.tgz",
         "mobilenet_v2_0.35_96.tflite"),
        ("mobilenet_v1_0.75_128_keras",
         "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_7_5_128_tf.h5", None),
        ("mobilenet_v2_1.0_160_keras",
         "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
         "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160.h5", None),
        ("mobilenetv2_100.ra_in1k",
         "https://huggingface.co/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors", None),
        ("alexnet_torchvision", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", None),
    ],
)  # fmt: skip
def test_addresses_as_their_publishers_spell_them(name, url, member):
    assert (find(name).url, find(name).member) == (url, member)


def test_preprocessing_is_the_publishers():
    torchvision = find("mobilenet_v2_1.0_224_torchvision_v2").preprocessing
    assert torchvision.mean == (0.485, 0.456, 0.406)
    assert torchvision.std == (0.229, 0.224, 0.225)
    assert round(224 / torchvision.crop) == 232
    assert torchvision.interpolation == "bilinear"
    assert find("mobilenetv2_100.ra_in1k").preprocessing.interpolation == "bicubic"
    google = find("mobilenet_v1_0.25_128_quant_tflite").preprocessing
    assert (google.mean, google.std, google.crop) == ((0.5,) * 3, (0.5,) * 3, 0.875)


def test_hashes_of_torchvision_are_in_the_file_names():
    assert find("squeezenet_1_1_torchvision").sha256 == "b8a52dc0"
    assert find("shufflenet_v2_0.5_torchvision").sha256 == "f707e7126e"


def test_a_name_that_is_not_there():
    with pytest.raises(
        FileError, match=r"^no checkpoint 'mobilenet_v2_torchvision'; closest: mobilenet_v2_1\.0_224_torch"
    ):
        find("mobilenet_v2_torchvision")
    with pytest.raises(
        FileError, match=r"^no checkpoint '!'; one is mobilenet_v2_1\.0_224_torchvision; .* lists all \d+$"
    ):
        find("!")
