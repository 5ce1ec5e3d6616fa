"""Where labelled pictures come from: a folder with one sub-folder per class, an .npz, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; `classes` optional
    open_source("digits")           scikit-learn's handwritten digits, offline

Where no validation part is given, one is cut from the training part: per class, chosen by a hash of seed and file name,
so that it is the same on every machine and adding pictures hardly changes it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn.data.decode import SUFFIXES
from smallcnn.errors import DataError, MissingExtra, closest

_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Split:
    """Pictures with their labels. `images` are paths, or a uint8 array (N, H, W) or (N, H, W, C)."""

    images: Sequence[Path] | np.ndarray
    labels: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> "Split":
        """These pictures, in this order."""
        images = (
            self.images[list(indices)] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        )
        return Split(images, self.labels[list(indices)], [self.names[i] for i in indices])


@dataclass(frozen=True)
class Source:
    """A data set: class names, and parts called train, val and test (test may be missing).

    `val_is_cut` says that the validation part was cut from the training part here; `mirror` that a picture keeps its
    class when mirrored; `fingerprint` identifies the pictures by their names and labels; `ignored` lists files in class
    folders that are not pictures.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    val_is_cut: bool
    mirror: bool
    fingerprint: str
    ignored: tuple[Path, ...] = ()

    def everything(self) -> Split:
        """All parts together."""
        parts = list(self.splits.values())
        images: Sequence[Path] | np.ndarray
        if isinstance(parts[0].images, np.ndarray):
            images = np.concatenate([np.asarray(part.images) for part in parts])
        else:
            images = [image for part in parts for image in part.images]
        names = [name for part in parts for name in part.names]
        return Split(images, np.concatenate([part.labels for part in parts]), names)


def open_source(source: str | Path, *, seed: int = 0, val_fraction: float = 0.2) -> Source:
    """Finds the pictures of a folder, an .npz file or a named set; decodes none of them.

    Raises DataError if there is nothing to learn from: no pictures, one class, labels that do not fit.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"the validation fraction must be between 0 and 1, not {val_fraction}")
    path = Path(source)
    mirror = True
    ignored: list[Path] = []
    if str(source) in NAMED and not path.exists():
        classes, splits = NAMED[str(source)]()
        mirror = False
    elif path.is_dir():
        classes, splits, ignored = _folder(path)
    elif path.suffix == ".npz" and path.is_file():
        classes, splits = _npz(path)
    else:
        raise DataError(f"no folder, .npz file or named set {str(source)!r}; {closest(str(source), NAMED)}")
    if len(classes) < 2:
        raise DataError(f"{source}: one class only, {classes[0]!r}; a classifier needs at least two")
    fingerprint = _fingerprint(splits)
    cut = "val" not in splits and "train" in splits
    if cut:
        splits["train"], splits["val"] = _cut(splits["train"], len(classes), seed, val_fraction)
    return Source(classes, splits, cut, mirror, fingerprint, tuple(ignored))


def _folder(root: Path) -> tuple[tuple[str, ...], dict[str, Split], list[Path]]:
    parts = {_SPLIT_FOLDERS[d.name.lower()]: d for d in _folders(root) if d.name.lower() in _SPLIT_FOLDERS}
    if "train" not in parts or not _folders(parts["train"]):
        parts = {"train": root}
    found = {part: {d.name: _pictures(d) for d in _folders(folder)} for part, folder in parts.items()}
    classes = tuple(sorted(found["train"]))
    if not classes:
        raise DataError(f"{root}: no class folders; put the pictures of each class into a folder of its own")
    if empty := [name for name in classes if not found["train"][name][0]]:
        raise DataError(f"{parts['train'] / empty[0]}: no pictures in this class folder")
    splits, ignored = {}, []
    for part, by_class in found.items():
        if strange := sorted(by_class.keys() - set(classes)):
            raise DataError(f"{parts[part] / strange[0]}: class {strange[0]!r} is not among the training classes")
        labelled = [(p, label) for label, name in enumerate(classes) for p in by_class.get(name, ([], []))[0]]
        ignored += [p for _, others in by_class.values() for p in others]
        if not labelled:
            raise DataError(f"{parts[part]}: no pictures")
        paths = [p for p, _ in labelled]
        names = [p.relative_to(root).as_posix() for p in paths]
        splits[part] = Split(paths, np.array([label for _, label in labelled]), names)
    return classes, splits, ignored


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
    return pictures, [p for p in files if p.suffix.lower() not in SUFFIXES]


def _npz(path: Path) -> tuple[tuple[str, ...], dict[str, Split]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # a damaged zip raises many things
        raise DataError(f"{path}: not a readable .npz file without pickled objects ({error})") from error
    pairs = {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
    if "x" in arrays:
        pairs = {"train": ("x", "y")}
    splits = {}
    for part, (x, y) in pairs.items():
        if x in arrays and y in arrays:
            splits[part] = _array_split(arrays[x], arrays[y], f"{path}: {x}, {y}")
    if "train" not in splits:
        raise DataError(
            f"{path}: needs x_train and y_train, or x and y; it has {', '.join(sorted(arrays)) or 'nothing'}"
        )
    count = 1 + max(int(split.labels.max()) for split in splits.values())
    classes = tuple(str(name) for name in arrays.get("classes", np.arange(count)))
    if len(classes) < count:
        raise DataError(f"{path}: label {count - 1} but only {len(classes)} class names")
    return classes, splits


def _array_split(images: np.ndarray, labels: np.ndarray, what: str) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise DataError(f"{what}: pictures must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), not "
                        f"{images.dtype} {images.shape}")  # fmt: skip
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu" or len(labels) != len(images) or not len(labels) or labels.min() < 0:
        raise DataError(f"{what}: needs one label of at least 0 per picture, got {labels.dtype} {labels.shape}")
    return Split(images, labels.astype(np.int64), [str(i) for i in range(len(labels))])


def _digits() -> tuple[tuple[str, ...], dict[str, Split]]:
    """1,797 handwritten digits, 8x8 grey, from scikit-learn (UCI optdigits test set). Every fifth is the test part."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the named set 'digits'", "train") from error
    data = load_digits()
    images = (data.images * 255 / 16).round().astype(np.uint8)
    whole = _array_split(images, data.target, "digits")
    held_out = np.arange(len(whole)) % 5 == 4
    train, test = np.flatnonzero(~held_out).tolist(), np.flatnonzero(held_out).tolist()
    return tuple("0123456789"), {"train": whole.subset(train), "test": whole.subset(test)}


NAMED: dict[str, Callable[[], tuple[tuple[str, ...], dict[str, Split]]]] = {"digits": _digits}


def _cut(split: Split, classes: int, seed: int, fraction: float) -> tuple[Split, Split]:
    """(what stays, the part cut off): per class, at least one picture each if there are two."""
    taken: set[int] = set()
    for label in range(classes):
        members = np.flatnonzero(split.labels == label).tolist()
        members.sort(key=lambda i: _hash(f"{seed}/{split.names[i]}"))
        taken.update(members[: max(round(len(members) * fraction), min(1, len(members) - 1))])
    rest = [i for i in range(len(split)) if i not in taken]
    return split.subset(rest), split.subset(sorted(taken))


def _fingerprint(splits: dict[str, Split]) -> str:
    lines = [
        f"{name} {label}" for split in splits.values() for name, label in zip(split.names, split.labels, strict=True)
    ]
    return _hash("\n".join(lines))[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
