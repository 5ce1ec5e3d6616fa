"""Named data sets: official files, hashes, licence notes and readers."""

from pathlib import Path

from smallcnn.data.archive import TARS
from smallcnn.data.folder import read_images
from smallcnn.data.listing import Listing
from smallcnn.data.named.cifar import CIFAR10, CIFAR100
from smallcnn.data.named.digits import DIGITS
from smallcnn.data.named.fashion_mnist import FASHION_MNIST
from smallcnn.data.named.flowers102 import FLOWERS102
from smallcnn.data.named.gtsrb import GTSRB
from smallcnn.data.named.imagenet import IMAGENET, IMAGENETTE
from smallcnn.data.named.official import Copy, NamedSet, NoCopyError
from smallcnn.data.named.svhn import SVHN
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.tasks.classification import Classification

NAMED: dict[str, NamedSet] = {
    "digits": DIGITS,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "fashion_mnist": FASHION_MNIST,
    "svhn": SVHN,
    "gtsrb": GTSRB,
    "flowers102": FLOWERS102,
    "imagenette": IMAGENETTE,
    "imagenet": IMAGENET,
}


def read_named(name: str, root: Path | None) -> Listing:
    """Reads the set `name`: from the official files in `root`, from images there, or by download.

    Raises DataError if `root` has no copy of it, FileError if it cannot be downloaded.
    """
    known = NAMED[name]
    if root is not None and not root.exists():
        raise DataError(f"{root}: no such folder")
    try:
        classes, splits = known.read(Copy(name, known.files, root, known.licence))
        return Listing(Classification(classes), splits, mirror=known.mirror)
    except NoCopyError as error:
        assert root is not None
        try:
            read = _images(name, root)
            if len(read.classes) != known.classes:
                raise DataError(f"{root}: {len(read.classes)} classes of images, {name} has {known.classes}")
        except DataError as other:
            raise DataError(f"{error}, and no images of {name} in class folders either ({other})") from other
        return Listing(read.task, read.splits, mirror=known.mirror)


def _images(name: str, root: Path) -> Listing:
    """Reads folders or archives with class folders, called NAME...train... and NAME...test...; or `root` itself."""
    found = {
        key: path
        for key in ("train", "val", "test")
        for path in sorted(root.glob(f"{name}[!0-9]*{key}*"))  # cifar100 is not cifar10
        if path.is_dir() or path.name.endswith(TARS)
    }
    if "train" not in found:
        return read_images(root)
    reads = {key: read_images(path) for key, path in found.items()}
    classes, splits = reads["train"].classes, {}
    for key, read in reads.items():
        if read.classes != classes or set(read.splits) != {"train"}:
            raise DataError(f"{found[key]}: not the same classes as in {found['train']}")
        split = read.splits["train"]
        splits[key] = Split(split.images, split.targets, [f"{key}/{name}" for name in split.names])
    return Listing(reads["train"].task, splits)
