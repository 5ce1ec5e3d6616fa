"""SVHN, cropped digits: 99,289 digits from photographs of house numbers, 32x32 colour."""

import numpy as np

from smallcnn.data.named.matlab import read_mat
from smallcnn.data.named.official import Contents, Copy, NamedSet, OfficialFile
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError


def _read(copy: Copy) -> Contents:
    """Reads train and test, without the easier "extra" images."""
    splits = {}
    for key in ("train", "test"):
        path = copy.find(f"{key}_32x32.mat")
        images, labels = read_mat(path, "X", "y")
        labels = labels.reshape(-1).astype(np.int64) % 10  # the file labels a 0 as 10
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise DataError(f"{path}: images are {images.dtype} {images.shape}, not uint8 (32, 32, 3, {len(labels)})")
        pixels = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
        splits[key] = Split(pixels, Classes(labels), [f"{key}[{i}]" for i in range(len(labels))])
    return tuple("0123456789"), splits


_HOME = "http://ufldl.stanford.edu/housenumbers/"
SVHN = NamedSet(
    _read,
    files=(
        OfficialFile(
            f"{_HOME}train_32x32.mat", 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
        ),
        OfficialFile(
            f"{_HOME}test_32x32.mat", 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
        ),
    ),
    classes=10,
    mirror=False,
    licence="non-commercial use only",
    citation="Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning",
)
