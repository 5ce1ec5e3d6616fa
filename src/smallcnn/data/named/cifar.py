"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32, in 10 and 100 classes.

Reads the binary version, whose records are bytes, or the Python version, which other tools may have unpacked already.
The pickles of the latter are read by an unpickler that only makes arrays.
"""

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.data.archive import File, content, files_in
from smallcnn.data.named.official import Contents, Copy, NamedSet, NoCopyError, OfficialFile
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError

_PIXELS = 32 * 32 * 3

_CLASSES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLASSES_100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905  (more readable for a hundred names)
)


def _read(
    copy: Copy, *, classes: tuple[str, ...], number: str, folders: tuple[str, str], batches: dict[str, tuple[str, ...]],
    labels: tuple[int, bytes],
) -> Contents:  # fmt: skip
    """Reads a set. `batches` lists each split's files; `labels` is (label bytes per record, key in the pickles)."""
    label_bytes, entry = labels
    try:
        path = copy.find(f"cifar-{number}-binary.tar.gz", folders[0])
        suffix, batch = ".bin", partial(_binary, label_bytes)
    except NoCopyError:
        path = copy.find(f"cifar-{number}-python.tar.gz", folders[1])
        suffix, batch = "", partial(_pickled, entry)
    files = {name.rpartition("/")[2]: file for name, file in files_in(path).items()}
    splits = {}
    for key, names in batches.items():
        if missing := [name + suffix for name in names if name + suffix not in files]:
            raise DataError(f"{path}: has no file {missing[0]}")
        splits[key] = _joined(path, [(name + suffix, files[name + suffix]) for name in names], batch, len(classes))
    return classes, splits


def _joined(
    path: Path, files: list[tuple[str, File]], batch: Callable[[bytes], tuple[np.ndarray, np.ndarray]], classes: int
) -> Split:
    found = []
    for name, file in files:
        try:
            pixels, labels = batch(content(file))
            good = pixels.shape == (len(labels), _PIXELS) and pixels.dtype == np.uint8 and labels.max() < classes
        except Exception as error:  # a damaged pickle raises anything
            raise DataError(f"{path}: {name}: not a batch of CIFAR images ({' '.join(str(error).split())})") from error
        if not good:
            raise DataError(f"{path}: {name}: not a batch of CIFAR images")
        found.append((pixels, labels))
    images = np.concatenate([pixels for pixels, _ in found]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    stem = files[0][0].partition("_")[0].removesuffix(".bin")
    return Split(
        np.ascontiguousarray(images), Classes(np.concatenate([labels for _, labels in found])),
        [f"{stem}[{i}]" for i in range(len(images))],
    )  # fmt: skip


def _binary(label_bytes: int, batch: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Reads records of `label_bytes` bytes, the last one the label, and 3,072 pixel values, plane by plane."""
    records = np.frombuffer(batch, np.uint8).reshape(-1, label_bytes + _PIXELS)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)


def _pickled(entry: bytes, batch: bytes) -> tuple[np.ndarray, np.ndarray]:
    loaded = _ArraysOnly(batch).load()
    return loaded[b"data"], np.array(loaded[entry], np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Makes numpy arrays, lists, dictionaries, strings and numbers; refuses everything else, so it runs no code."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """The object that a pickle names."""
        empty = np.empty(0).__reduce__()[0]  # numpy.core.multiarray._reconstruct, wherever this numpy has it
        allowed = {"multiarray._reconstruct": empty, "numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
        wanted = f"{module}.{name}".removeprefix("numpy.core.").removeprefix("numpy._core.")
        if wanted not in allowed:
            raise pickle.UnpicklingError(f"it asks for {wanted}")
        return allowed[wanted]


_HOME = "https://www.cs.toronto.edu/~kriz/"
_LICENCE = "none stated by the authors; customary use is research, with citation"
_CITATION = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"

# sizes and SHA-256 as TensorFlow Datasets and torchvision record them
CIFAR10 = NamedSet(
    partial(
        _read, classes=_CLASSES_10, number="10", folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
        batches={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        labels=(1, b"labels"),
    ),
    files=(
        OfficialFile(
            f"{_HOME}cifar-10-binary.tar.gz", 170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        OfficialFile(
            f"{_HOME}cifar-10-python.tar.gz", None,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    classes=10,
    mirror=True,
    licence=_LICENCE,
    citation=_CITATION,
)  # fmt: skip
CIFAR100 = NamedSet(
    partial(
        _read, classes=_CLASSES_100, number="100", folders=("cifar-100-binary", "cifar-100-python"),
        batches={"train": ("train",), "test": ("test",)}, labels=(2, b"fine_labels"),
    ),
    files=(
        OfficialFile(
            f"{_HOME}cifar-100-binary.tar.gz", 168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        OfficialFile(
            f"{_HOME}cifar-100-python.tar.gz", None,
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    ),
    classes=100,
    mirror=True,
    licence=_LICENCE,
    citation=_CITATION,
)  # fmt: skip
