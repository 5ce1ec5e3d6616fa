"""Fashion-MNIST: 70,000 grey images of clothes, 28x28, in the file format of MNIST."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from smallcnn.data.named.official import Contents, Copy, NamedSet, OfficialFile
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError

_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def _read(copy: Copy) -> Contents:
    splits = {}
    for key, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = (
            _idx(copy.find(f"{prefix}-{name}.gz", f"{prefix}-{name}"), axes)
            for name, axes in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
        )
        if len(images) != len(labels):
            raise DataError(f"fashion_mnist: {len(images)} images and {len(labels)} labels in the split {key}")
        splits[key] = Split(images, Classes(labels.astype(np.int64)), [f"{key}[{i}]" for i in range(len(images))])
    return _CLASSES, splits


def _idx(path: Path, axes: int) -> np.ndarray:
    """The byte array in an IDX file: two zeros, 8 for bytes, the number of axes, their lengths, the data."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, *shape = struct.unpack_from(f">{1 + axes}i", data)
        if magic != 0x800 + axes:
            raise ValueError("wrong magic number")
        return np.frombuffer(data, np.uint8, offset=4 * (1 + axes)).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise DataError(f"{path}: not an IDX file of {axes} axes ({error})") from error


_HOME = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_MNIST = NamedSet(
    _read,
    files=(
        OfficialFile(
            f"{_HOME}train-images-idx3-ubyte.gz", 26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        OfficialFile(
            f"{_HOME}train-labels-idx1-ubyte.gz", 29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        OfficialFile(
            f"{_HOME}t10k-images-idx3-ubyte.gz", 4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        OfficialFile(
            f"{_HOME}t10k-labels-idx1-ubyte.gz", 5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    classes=10,
    mirror=True,
    licence="MIT",
    citation="Xiao et al. 2017, Fashion-MNIST, arXiv 1708.07747",
)  # fmt: skip
