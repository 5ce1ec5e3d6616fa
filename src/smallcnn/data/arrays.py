"""Images stored as arrays in .npz files."""

from pathlib import Path

import numpy as np

from smallcnn.data.archive import check_swelling
from smallcnn.data.listing import Listing
from smallcnn.data.split import Split
from smallcnn.data.stores import ZipStore
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError
from smallcnn.tasks.classification import Classification

_SPLITS = {"x": "train", "x_train": "train", "x_val": "val", "x_test": "test"}


def read_npz(path: Path) -> Listing:
    """Reads an .npz file; executes nothing from it. Raises DataError."""
    labels_of = {key: "y" + key[1:] for key in _SPLITS}
    wanted = {*labels_of.keys(), *labels_of.values(), "classes"}
    try:
        _check_size(path, wanted)
        with np.load(path, allow_pickle=False) as archive:
            present = sorted(archive.files)
            arrays = {key: archive[key] for key in present if key in wanted}
    except DataError:
        raise
    except Exception as error:  # a damaged zip raises many things
        why = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable .npz file without pickled objects ({why})") from error
    splits: dict[str, Split] = {}
    for key, name in _SPLITS.items():
        if key not in arrays:
            continue
        if labels_of[key] not in arrays:
            raise DataError(f"{path}: {key} needs {labels_of[key]}; the file has {', '.join(present)}")
        if name in splits:
            raise DataError(f"{path}: has x and x_train; keep one of them")
        splits[name] = _split(arrays[key], arrays[labels_of[key]], key, str(path))
    if not splits:
        have = ", ".join(present) or "nothing"
        raise DataError(f"{path}: needs x_train and y_train, or x and y; the file has {have}")
    shapes = {arrays[key].shape[1:] for key in _SPLITS if key in arrays}
    if len(shapes) > 1:
        raise DataError(f"{path}: all splits need images of one shape, not {' and '.join(map(str, sorted(shapes)))}")
    labels = np.unique(np.concatenate([split.labels for split in splits.values()]))
    return Listing(Classification(_class_names(path, arrays.get("classes"), labels)), splits)


def _check_size(path: Path, wanted: set[str]) -> None:
    """Raises DataError early if a small file would unpack to arrays that fill the memory."""
    store = ZipStore(path)
    with store.zip:
        members = [member for member in store.members if member.filename.removesuffix(".npy") in wanted]
        if problem := next(filter(None, map(store.unreadable, members)), ""):
            raise ValueError(problem)
        store.check_places()
    check_swelling(path, path.stat().st_size, sum(member.file_size for member in members))


def _class_names(path: Path, names: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
    """One name per class; `labels` are the distinct labels, ascending."""
    highest = int(labels[-1])
    if names is None:
        if highest != len(labels) - 1:
            raise DataError(
                f"{path}: {len(labels)} different labels, the highest {highest}; they must be 0, 1, ... without gaps, "
                "or the array `classes` must name all classes"
            )
        return tuple(map(str, labels.tolist()))
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise DataError(f"{path}: classes must be a list of different names, not {names.dtype} {names.shape}")
    if highest >= len(names):
        raise DataError(f"{path}: label {highest}, but classes has only {len(names)} names; labels count from 0")
    return tuple(names.tolist())


def _split(images: np.ndarray, labels: np.ndarray, key: str, where: str) -> Split:
    good_shape = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not good_shape or not images.size:
        got = f"{images.dtype} {images.shape}"
        raise DataError(f"{where}: {key} must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), not {got}")
    count = len(images)
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        got = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{where}: {key} needs one whole number per image as labels, ({count},), not {got}")
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{where}: {key} has the label {labels.min()}; labels start at 0")
    return Split(images, Classes(labels), [f"{key}[{i}]" for i in range(count)])
