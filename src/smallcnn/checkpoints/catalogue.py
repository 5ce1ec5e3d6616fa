"""Public ImageNet checkpoints of the registered networks: address, publisher, accuracy.

Accuracies are the publishers' own, on the 50,000 validation images of ILSVRC-2012, one centre crop. Hashes are also
the publishers', or those pinned by public build recipes; files without one are accepted as the server sends them.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.image.resample import Interpolation


@dataclass(frozen=True)
class Checkpoint:
    """One public file of weights.

    `model` is the network as `smallcnn list` spells it; `member` the file inside the archive at `url`; `sha256` of the
    file at `url`, possibly only its first digits; `size` in bytes; `top1` and `top5` in per cent. None: not known.
    `layout` is the origin in `layouts` where the names in the file do not reveal it.
    """

    name: str
    model: str
    url: str
    licence: str
    origin: str
    preprocessing: Preprocessing
    top1: float | None = None
    top5: float | None = None
    sha256: str | None = None
    size: int | None = None
    member: str | None = None
    layout: str | None = None


def find(name: str) -> Checkpoint:
    """The checkpoint named `name`; raises FileError with the closest names if there is none."""
    if name not in CATALOGUE:
        near = [known for known in CATALOGUE if known.startswith(name)][:3] if name else []
        near = near or difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.5)
        hint = f"closest: {', '.join(near)}" if near else f"one is {next(iter(CATALOGUE))}"
        raise FileError(f"no checkpoint {name!r}; {hint}; `smallcnn pull` lists all {len(CATALOGUE)}")
    return CATALOGUE[name]


_Colour = tuple[float, float, float]
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)  # pixels in -1..1, as in TensorFlow

# name, model, file, side resized to before the 224 crop, top-1, top-5     torchvision 0.29.2, models/*.py
_TORCHVISION = (
    ("mobilenet_v2_1.0_224_torchvision", "mobilenet_v2", "mobilenet_v2-b0353104", 256, 71.878, 90.286),
    ("mobilenet_v2_1.0_224_torchvision_v2", "mobilenet_v2", "mobilenet_v2-7ebf99e0", 232, 72.154, 90.822),
    ("mobilenet_v3_large_torchvision", "mobilenet_v3_large", "mobilenet_v3_large-8738ca79", 256, 74.042, 91.340),
    ("mobilenet_v3_large_torchvision_v2", "mobilenet_v3_large", "mobilenet_v3_large-5c1a4163", 232, 75.274, 92.566),
    ("mobilenet_v3_small_torchvision", "mobilenet_v3_small", "mobilenet_v3_small-047dcff4", 256, 67.668, 87.402),
    ("squeezenet_1_0_torchvision", "squeezenet_1_0", "squeezenet1_0-b66bff10", 256, 58.092, 80.420),
    ("squeezenet_1_1_torchvision", "squeezenet_1_1", "squeezenet1_1-b8a52dc0", 256, 58.178, 80.624),
    ("shufflenet_v2_0.5_torchvision", "shufflenet_v2:scale=0.5", "shufflenetv2_x0.5-f707e7126e", 256, 60.552, 81.746),
    ("shufflenet_v2_1.0_torchvision", "shufflenet_v2:scale=1", "shufflenetv2_x1-5666bf0f80", 256, 69.362, 88.316),
    ("shufflenet_v2_1.5_torchvision", "shufflenet_v2:scale=1.5", "shufflenetv2_x1_5-3c479a10", 232, 72.996, 91.086),
    ("shufflenet_v2_2.0_torchvision", "shufflenet_v2:scale=2", "shufflenetv2_x2_0-8be3c8ee", 232, 76.230, 93.006),
    ("googlenet_torchvision", "googlenet:variant=torchvision", "googlenet-1378be20", 256, 69.778, 89.530),
    ("vgg16_torchvision", "vgg16", "vgg16-397923af", 256, 71.592, 90.382),
    ("alexnet_torchvision", "alexnet:variant=one_tower", "alexnet-owt-7be5be79", 256, 56.522, 79.066),
)  # fmt: skip


def _torchvision() -> Iterator[Checkpoint]:
    for name, model, file, resized, top1, top5 in _TORCHVISION:
        # googlenet.py turns ImageNet's colour into TensorFlow's before the first layer (transform_input)
        colour = (_HALF, _HALF) if name.startswith("googlenet") else (_IMAGENET_MEAN, _IMAGENET_STD)
        yield Checkpoint(
            name=name,
            model=model,
            url=f"https://download.pytorch.org/models/{file}.pth",
            licence="BSD-3-Clause",
            origin="torchvision, trained on ImageNet-1k",
            preprocessing=Preprocessing((224, 224), *colour, crop=224 / resized),
            top1=top1,
            top5=top5,
            sha256=file.rpartition("-")[2],
        )


# name, model, mean and std, interpolation, top-1, top-5, SHA-256
# from timm 1.0.31, models/*.py, and its results/results-imagenet.csv; hashes as the hub shows them
_TIMM: tuple[tuple[str, str, tuple[_Colour, _Colour], Interpolation, float, float | None, str | None], ...] = (
    ("mobilenetv1_100.ra4_e3600_r224_in1k", "mobilenet_v1", (_HALF, _HALF), "bicubic", 75.388, 92.310, None),
    ("mobilenetv2_050.lamb_in1k", "mobilenet_v2:width=0.5", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     65.928, 86.114, None),
    ("mobilenetv2_100.ra_in1k", "mobilenet_v2", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     72.910, 91.000, "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e"),
    ("mobilenetv2_140.ra_in1k", "mobilenet_v2:width=1.4", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     76.528, 93.008, None),
    ("mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     75.766, 92.538, "f425af34cc1cead2b5d6211f789a1f30b94835dc32f9c0fcc5a916e4fd2dde85"),
    ("tf_mobilenetv3_large_100.in1k", "mobilenet_v3_large", (_HALF, _HALF), "bilinear", 75.516, 92.594, None),
    ("mobilenetv3_small_100.lamb_in1k", "mobilenet_v3_small", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     67.656, 87.636, "46d2c063b18125884c48937afa4c49e18128869e52e8db96df48bf0a4d7ff697"),
    ("mobilenetv4_conv_small.e2400_r224_in1k", "mobilenet_v4_conv_small", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     73.756, None, "7a7102ec18f62bbfb555b6fe829bbb5af749516b84174926c29ffdfdfc03aec4"),
    ("efficientnet_lite0.ra_in1k", "efficientnet_lite0", (_IMAGENET_MEAN, _IMAGENET_STD), "bicubic",
     75.480, 92.522, None),
    ("tf_efficientnet_lite0.in1k", "efficientnet_lite0", (_HALF, _HALF), "bicubic", 74.830, 92.172, None),
)  # fmt: skip


def _timm() -> Iterator[Checkpoint]:
    for name, model, (mean, std), interpolation, top1, top5, sha256 in _TIMM:
        ported = ", ported from TensorFlow" if name.startswith("tf_") else ""
        yield Checkpoint(
            name=name,
            model=model,
            url=f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors",
            licence="Apache-2.0",
            origin=f"timm on the Hugging Face hub, trained on ImageNet-1k{ported}",
            preprocessing=Preprocessing((224, 224), mean, std, interpolation=interpolation),
            top1=top1,
            top5=top5,
            sha256=sha256,
            layout="timm-tf" if name.startswith("tf_") else "timm",
        )
    yield Checkpoint(
        name="legacy_xception.tf_in1k",
        model="xception",
        url="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
        licence="Apache-2.0",
        origin="timm, ported from Keras, trained on ImageNet-1k",
        preprocessing=Preprocessing((299, 299), _HALF, _HALF, crop=0.8975, interpolation="bicubic"),
        top1=79.058,
        top5=94.396,
    )


# width, side, top-1, top-5, first half of the archive's SHA-256
# tensorflow/models, research/slim/nets/mobilenet_v1.md; hashes as pinned by public Yocto recipes
_V1 = (
    (1.0, 224, 70.9, 89.9, "1ccb74dbd9c5f7aea879120614e91617"),
    (1.0, 192, 70.0, 89.2, "ad683fb270cd1b0f49c820c4acf5fcbb"),
    (1.0, 160, 68.0, 87.7, "1f612ebeda0e7e149897273c445b790c"),
    (1.0, 128, 65.2, 85.8, "d16f3102c1cb087eacf94c6a5abf0477"),
    (0.75, 224, 68.4, 88.2, "bf61b3ce7ca2d045bb35fa6ab9a68732"),
    (0.75, 192, 67.2, 87.3, "3d91d279cd06c055500aabdff8dfbd51"),
    (0.75, 160, 65.3, 86.0, "90b3f26406a89df489373358aa89d9db"),
    (0.75, 128, 62.1, 83.9, "54a28065f6f230d0b71cf8fbbc50bbb8"),
    (0.5, 224, 63.3, 84.9, "0eb9be8d18dcf9466a2a2d2157e71c83"),
    (0.5, 192, 61.7, 83.6, "57c81cc48349d1079377f8cdeed3f017"),
    (0.5, 160, 59.1, 81.9, "fb01b76ca1fb053e5f98d297e21c6c53"),
    (0.5, 128, 56.3, 79.4, "5a0def0d844327526385b110cdcaa642"),
    (0.25, 224, 49.8, 74.2, "eee166d4d1de004e2ee5de19a4f50455"),
    (0.25, 192, 47.7, 72.3, "4889d7afabc31011f5218f6111532947"),
    (0.25, 160, 45.5, 70.3, "8eb4540af0227e5e59849c41ca6da6f0"),
    (0.25, 128, 41.5, 66.3, "34c52de7562259f66399993ef5ea222c"),
)  # fmt: skip

# The 8-bit files of August 2018, measured in TensorFlow Lite: its page of hosted models.
_V1_QUANT = (
    (1.0, 224, 70.0, 89.0, "d32432d28673a936b2d6281ab0600c71"),
    (1.0, 192, 69.1, 88.1, "b87b20c784e756fb52e265cc31fbea5b"),
    (1.0, 160, 66.9, 86.7, "b5c9da0d5215a1c1faab313f88ba0a90"),
    (1.0, 128, 63.3, 84.1, "29aec24c721329b83ff667195431ff91"),
    (0.75, 224, 66.9, 86.9, "6c40604a53edb295e6fd72ead340759d"),
    (0.75, 192, 66.1, 86.2, "8dc64937bd9f35dcf8d3baa16b8eda47"),
    (0.75, 160, 62.4, 83.7, "ed023a21c1fbb062a4777056f79910aa"),
    (0.75, 128, 55.9, 79.1, "14cd0b9c5cde26272c68ecc50de05497"),
    (0.5, 224, 61.2, 83.2, "f61c28ab322a3ef441341431d33732ef"),
    (0.5, 192, 59.9, 82.1, "b3b7aca2599c9a09f7ebeb3f624fc51b"),
    (0.5, 160, 57.2, 80.5, "036ff1a53180f844ee629ae5846c2b18"),
    (0.5, 128, 54.9, 78.1, "0a5b18571d3df4d85a5ac6cb5be829d1"),
    (0.25, 224, 48.2, 72.8, "be8131a23c93a83d7d0b1875ac34aa2e"),
    (0.25, 192, 45.7, 70.8, "33f4ca5c5c7fb70f81a23ec06a884482"),
    (0.25, 160, 42.8, 68.1, "8aba0b905df472d994c1d923efa743c7"),
    (0.25, 128, 39.5, 64.4, "40230cd1a429a20cfd648f08f72b6d55"),
)  # fmt: skip

# tensorflow/models, research/slim/nets/mobilenet/README.md; keras-applications repeats its accuracies
_V2 = (
    (1.4, 224, 75.0, 92.5, "a20d0c8d698502dc6a620528871c97a5"),
    (1.3, 224, 74.4, 92.1, "b04129d44a46e0eb409c1a2bc255472e"),
    (1.0, 224, 71.8, 91.0, "318084bc1b63d6d7b854553e09cdf770"),
    (1.0, 192, 70.7, 90.1, "e8d9cd7c571f375c80945b5f889705ae"),
    (1.0, 160, 68.8, 89.0, "e374bc70066dde0c3af6cb4c98ecd870"),
    (1.0, 128, 65.3, 86.9, "f692e341cf1529df4f7e68ed13d0284a"),
    (1.0, 96, 60.3, 83.2, "8f0377b71d79f5626c5198f248b476d2"),
    (0.75, 224, 69.8, 89.6, "335cd22c7e1c5e80205dedd6e2ff5d1d"),
    (0.75, 192, 68.7, 88.9, "40efef9324376d47b872d1cd6e4de8ba"),
    (0.75, 160, 66.4, 87.3, "904d1a1f84c329ad766464d132f697e9"),
    (0.75, 128, 63.2, 85.3, "9ac932679a9fb1304bc1435bb7fa30e1"),
    (0.75, 96, 58.8, 81.6, "bdf06eec5478dbb1bb9e01648637d8ac"),
    (0.5, 224, 65.4, 86.4, "813febbdbe2a7a50055ee2f6b374938a"),
    (0.5, 192, 63.9, 85.4, "5a344ed91cded5d420b6c65d47343ee6"),
    (0.5, 160, 61.0, 83.2, "f89c879b1a45c5d677ad7fe499f08a78"),
    (0.5, 128, 57.7, 80.8, "ba078efd101c2308fb978467084f0ec1"),
    (0.5, 96, 51.2, 75.8, "71a814047d7729bad711ae3e7db30e6c"),
    (0.35, 224, 60.3, 82.9, "efcc34277c52f7dd4b0b26c2f5268679"),
    (0.35, 192, 58.2, 81.2, "5dec603e2714a780c3cfc0656dac51bf"),
    (0.35, 160, 55.7, 79.1, "e579b5b50f47e88dc0c4390d20a39665"),
    (0.35, 128, 50.8, 75.0, "c21a8f89e2e1a49e9002b1e1b871f3c9"),
    (0.35, 96, 45.5, 70.4, "282996bca7d799d0172ce5d34ac59dea"),
)  # fmt: skip
_V2_QUANT = ((1.0, 224, 70.8, 89.9, "d6a04d780f76f656c902413be432eb34"),)

_GOOGLE = "https://storage.googleapis.com"
_HOSTED = f"{_GOOGLE}/download.tensorflow.org/models"


def _google() -> Iterator[Checkpoint]:
    """Archives with a .tflite file, a TensorFlow checkpoint and graphs; batch norm is folded in the .tflite file."""
    for network, table, ending, folder in (
        ("mobilenet_v1", _V1, "", f"{_HOSTED}/mobilenet_v1_2018_02_22"),
        ("mobilenet_v1", _V1_QUANT, "_quant", f"{_HOSTED}/mobilenet_v1_2018_08_02"),
        ("mobilenet_v2", _V2, "", f"{_GOOGLE}/mobilenet_v2/checkpoints"),
        ("mobilenet_v2", _V2_QUANT, "_quant", f"{_HOSTED}/tflite_11_05_08"),
    ):
        for width, side, top1, top5, sha256 in table:
            file = f"{network}_{width}_{side}{ending}"
            yield Checkpoint(
                name=f"{file}_tflite",
                model=_wide(network, width),
                url=f"{folder}/{file}.tgz",
                member=f"{file}.tflite",
                licence="Apache-2.0",
                origin="Google, TensorFlow Lite, trained on ImageNet-1k" + (", 8 bit" if ending else ""),
                preprocessing=Preprocessing((side, side)),
                top1=top1,
                top5=top5,
                sha256=sha256,
            )


# file, bytes, SHA-256
_CORAL = (
    ("mobilenet_v1_0.25_128_quant", 525598, "cb273c23ee76374b05b9583177e28aa19744858a7679c56a250e83d0333da785"),
    ("mobilenet_v1_0.5_160_quant", 1392846, "3cc6d2ca460abd2e0f699a6d0d2550c6b61c6e3b0e27a3616e384ea74cb86f43"),
    ("mobilenet_v1_0.75_192_quant", 2652542, "41daeb22fdcf947e0e5ec32373aa9df7c31f3ef45dbd0ef7b5940fbce3c20f6a"),
    ("mobilenet_v2_1.0_224_quant", 3610798, "7aad0c74c5e3c06e5eb3c827e13304fdd68a83da6087d92ee169c24ff9fd4776"),
)


def _coral() -> Iterator[Checkpoint]:
    """Only the .tflite files, converted again: small downloads without published accuracies."""
    for file, size, sha256 in _CORAL:
        network, width, side = file.removesuffix("_quant").rsplit("_", 2)
        yield Checkpoint(
            name=f"{file}_coral",
            model=_wide(network, float(width)),
            url="https://raw.githubusercontent.com/google-coral/test_data/104342d2d3480b3e66203073dac24f4e2dbb4c41/"
            f"{file}.tflite",
            licence="Apache-2.0",
            origin="Google, Coral test data, trained on ImageNet-1k, 8 bit",
            preprocessing=Preprocessing((int(side), int(side))),
            sha256=sha256,
            size=size,
        )


def _keras() -> Iterator[Checkpoint]:
    """keras-applications, mobilenet.py and mobilenet_v2.py: the slim weights with batch norm, 1000 classes."""
    folder = f"{_GOOGLE}/tensorflow/keras-applications"
    digits = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
    measured: dict[tuple[float, int], tuple[float, float]] = {(1.0, 224): (70.4, 89.5)}  # keras.io/api/applications
    files = [
        ("mobilenet_v1", width, side, f"mobilenet/mobilenet_{digits[width]}_{side}_tf", measured.get((width, side)))
        for width, side, *_ in _V1
    ] + [
        ("mobilenet_v2", width, side, f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{side}",
         (top1, top5))
        for width, side, top1, top5, _ in _V2
    ]  # fmt: skip
    for network, width, side, file, published in files:
        top1, top5 = published or (None, None)
        yield Checkpoint(
            name=f"{network}_{width}_{side}_keras",
            model=_wide(network, width),
            url=f"{folder}/{file}.h5",
            licence="Apache-2.0",
            origin="Keras, converted from Google's TensorFlow checkpoints, trained on ImageNet-1k",
            preprocessing=Preprocessing((side, side)),
            top1=top1,
            top5=top5,
        )


def _wide(network: str, width: float) -> str:
    return network if width == 1 else f"{network}:width={width:g}"


CATALOGUE = {each.name: each for group in (_torchvision, _timm, _google, _coral, _keras) for each in group()}
"""Every checkpoint by its name."""
