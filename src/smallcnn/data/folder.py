"""Images in a folder with one sub-folder per class, directly or under train/, val/ and test/; or in such an archive.

Annotations of objects (`smallcnn.data.boxes`) and tables of attributes come before class folders.
Everything below a class folder belongs to the class, except hidden files and folders that programs keep for themselves.
A class may be a link to a folder, but links to folders inside a class are not followed. The result and its order do not
depend on the file system or the operating system. A single folder around the whole set is skipped.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smallcnn.data import attributes
from smallcnn.data.archive import File, files_in, is_archive
from smallcnn.data.boxes import read as boxes
from smallcnn.data.left_out import LeftOut, is_image_name, is_table_name
from smallcnn.data.listing import Listing
from smallcnn.data.questions import Columns
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.data.tree import DEEPEST, SPLITS, Folder, InArchive, OnDisk, around, by_split, check_strays, nfc
from smallcnn.errors import DataError, ImageError
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection


def read_images(path: Path, columns: Columns = None) -> Listing:
    """Reads a folder, an archive, or a table or COCO's JSON with the images around it; `columns` as in `open_source`.

    Raises DataError or OSError.
    """
    left_out = LeftOut()
    if is_archive(path):
        files = files_in(path, left_out)
        if left_out.files and not files:
            raise DataError(f"{path}: no usable file in it ({left_out.line()})")
        inside = {tuple(name.split("/")): file for name, file in files.items()}
        return _read(InArchive(path, inside, left_out), columns)
    if is_table(path) or is_json(path):
        if _may_be_boxes(columns) and (found := boxes.read(*_around(path, left_out))):
            return found
        if is_json(path):
            raise DataError(f"{path}: not COCO annotations, which have lists of images, annotations and categories")
        return _read(OnDisk(path.parent, left_out), columns, path.name)
    return _read(OnDisk(path, left_out), columns)


def is_table(path: Path) -> bool:
    """Whether `path` is a table, by name."""
    return path.is_file() and is_table_name(path.name)


def is_json(path: Path) -> bool:
    """Whether `path` is a JSON file, by name."""
    return path.is_file() and path.suffix.lower() == ".json"


def _may_be_boxes(columns: Columns) -> bool:
    """Whether nothing asks for attributes or classes."""
    return columns is None or isinstance(columns, Detection)


def _around(path: Path, left_out: LeftOut) -> tuple[Folder, str]:
    """The folder with the images of an annotation file, and the file's name in it; COCO's lie next to annotations/."""
    here = OnDisk(path.parent, left_out)
    if path.parent.name.lower() in ("annotations", "annotation") and not OnDisk(path.parent, LeftOut()).images():
        return OnDisk(path.parent.parent, left_out), f"{path.parent.name}/{path.name}"
    return here, path.name


def images_in(folder: Path) -> tuple[list[Path], LeftOut]:
    """All images in a folder and below, sorted, ignoring classes. Raises ImageError if there are none."""
    left_out = LeftOut()
    try:
        found = [file for file in OnDisk(folder, left_out).images().values() if isinstance(file, Path)]
    except OSError as error:
        raise ImageError(f"{error.filename or folder}: {error.strerror or error}") from error
    if not found:
        raise ImageError(f"{folder}: no images in this folder" + _because(left_out))
    return found, left_out


def _read(root: Folder, columns: Columns, table: str | None = None) -> Listing:
    left_out, given = root.left_out, root
    if table is None and _may_be_boxes(columns) and (found := boxes.read(given)):
        return found
    if labelled := attributes.read(given, columns, table):
        return labelled
    if isinstance(columns, Sequence):
        raise DataError(f"{given.path}: columns are those of a table next to the images, and none was found")
    root = _meant(given)
    notes = around(given, root)
    folders = _splits(root)
    for folder in {folder.path: folder for folder in (given, root, *folders.values())}.values():
        for path in folder.loose():
            left_out.file(path, "outside the class folders" if is_image_name(path.name) else "")
    classes_of = {key: _by_class(folder) for key, folder in folders.items()}
    for key, by_class in classes_of.items():
        if not by_class:
            where = folders[key].path
            raise DataError(
                f"{where}: no class folders; put the images of each class into a separate folder" + _because(left_out)
            )
    classes = tuple(sorted({name for by_class in classes_of.values() for name, images in by_class.items() if images}))
    place = {name: i for i, name in enumerate(classes)}
    splits, untrainable = {}, ""
    for key, by_class in classes_of.items():
        where = folders[key].path
        below = "" if where == root.path else f"{where.name}/"
        files: list[File] = []
        labels: list[int] = []
        names: list[str] = []
        for name, images in sorted(by_class.items()):
            if not images:
                notes.append(
                    f"{where / name}: no images in this class folder" + _because(left_out.inside(where / name))
                )
                untrainable = untrainable or notes[-1] * (key == "train")
                continue
            if name not in classes_of.get("train", by_class):
                untrainable = untrainable or f"{where / name}: class {name!r} has no folder in {folders['train'].path}"
            files += images.values()
            labels += [place[name]] * len(images)
            names += [f"{below}{name}/{image}" for image in images]
        if not files:
            raise DataError(f"{where}: no images" + _because(left_out))
        splits[key] = Split(files, Classes(np.array(labels)), names)
    return Listing(Classification(classes), splits, left_out, tuple(notes), untrainable)


def _because(left_out: LeftOut) -> str:
    line = left_out.line()
    return f" ({line})" if line else ""


def _meant(root: Folder) -> Folder:
    """`root`, or the only folder below it that is already split: photos/flowers for photos/flowers/train."""
    here = root
    for _ in range(DEEPEST):
        folders = here.folders()
        if any(folder.path.name.lower() in SPLITS for folder in folders):
            break
        sets = [folder for folder in folders if _is_split(folder)]
        others = [folder.path.name for folder in folders if folder not in sets and sets and folder.images()]
        if len(sets) > 1 or others:
            named = ", ".join(folder.path.name for folder in sets[:3])
            count = "are data sets" if len(sets) > 1 else "is a data set"
            alongside = f", next to folders of images ({', '.join(others[:3])})" if others else ""
            raise DataError(
                f"{here.path}: ambiguous folder: {named} {count} with train, val or test{alongside}; "
                f"give one folder, such as {sets[0].path}"
            )
        if sets:
            return sets[0]
        if len(folders) != 1 or not folders[0].folders():
            break
        here = folders[0]
    return here if root.packed else root


def _is_split(folder: Folder) -> bool:
    """Whether it holds train/, val/ or test/ with class folders in them."""
    return any(inner.path.name.lower() in SPLITS and inner.folders() for inner in folder.folders())


def _by_class(folder: Folder) -> dict[str, dict[str, File]]:
    """Class name -> its images."""
    found = {}
    for inner in folder.folders():
        if (name := nfc(inner.path.name)) in found:
            raise DataError(f"{folder.path}: two folders called {name!r}, in different Unicode forms; rename one")
        found[name] = inner.images()
    return found


def _splits(root: Folder) -> dict[str, Folder]:
    """Split -> the folder that contains its class folders; {"train": root} if `root` contains them itself."""
    splits, others = by_split(root)
    if not splits or (others and not any(folder.folders() for folder in splits.values())):
        return {"train": root}  # a class may be called "train"
    check_strays(splits, others)
    return splits
