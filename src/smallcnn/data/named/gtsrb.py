"""GTSRB: 51,839 photographs of German traffic signs, 15 to 250 pixels, in 43 classes.

The training images are 30 frames of a drive past each sign. With a random validation split, its signs would also be in
the training split. So every fifth sign, not every fifth image, is in the validation split.
"""

import csv
import io

import numpy as np

from smallcnn.data.archive import File, content, files_in
from smallcnn.data.named.official import Contents, Copy, NamedSet, OfficialFile
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError, ImageError

_CLASSES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing for vehicles over 3.5 t",
    "right of way at the next junction", "priority road", "yield", "stop", "no vehicles", "no vehicles over 3.5 t",
    "no entry", "general caution", "curve to the left", "curve to the right", "double curve", "bumpy road",
    "slippery road", "road narrows on the right", "road work", "traffic signals", "pedestrians", "children crossing",
    "bicycles crossing", "ice or snow", "wild animals", "end of all limits", "turn right ahead", "turn left ahead",
    "ahead only", "straight or right", "straight or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing for vehicles over 3.5 t",
)  # fmt: skip
"""Class names in the set's own order, 00000 to 00042."""


def _read(copy: Copy) -> Contents:
    path = copy.find("GTSRB_Final_Training_Images.zip", "Final_Training")
    images = {tuple(name.split("/")[-2:]): file for name, file in files_in(path).items() if name.endswith(".ppm")}
    try:
        found = [(f"{label}/{name}", int(label), int(name.split("_")[0]), file)
                 for (label, name), file in images.items()]  # fmt: skip
    except ValueError:
        raise DataError(f"{path}: its images are not called CLASS/SIGN_FRAME.ppm") from None
    held_out = [sign % 5 == 4 for _, _, sign, _ in found]
    splits = {
        key: _split([(name, label, file) for (name, label, _, file), out in zip(found, held_out, strict=True)
                     if out == (key == "val")], str(path))
        for key in ("train", "val")
    }  # fmt: skip
    splits["test"] = _test(copy)
    return _CLASSES, splits


def _test(copy: Copy) -> Split:
    path = copy.find("GTSRB_Final_Test_Images.zip", "Final_Test")
    table = copy.find("GTSRB_Final_Test_GT.zip", "GT-final_test.csv")
    images = {name.rpartition("/")[2]: file for name, file in files_in(path).items() if name.endswith(".ppm")}
    try:
        file: File = table
        if table.suffix == ".zip":
            file = next(file for name, file in files_in(table).items() if name.endswith("GT-final_test.csv"))
        rows = list(csv.DictReader(io.StringIO(content(file).decode("ascii")), delimiter=";"))
        return _split([(row["Filename"], int(row["ClassId"]), images[row["Filename"]]) for row in rows], str(path))
    except (KeyError, ValueError, StopIteration, OSError, ImageError) as error:
        raise DataError(f"{table}: not the classes of the images in {path} ({error})") from error


def _split(found: list[tuple[str, int, File]], where: str) -> Split:
    labels = np.array([label for _, label, _ in found], np.int64)
    if not found or labels.min() < 0 or labels.max() >= len(_CLASSES):
        raise DataError(f"{where}: no images, or classes other than 0 to {len(_CLASSES) - 1}")
    return Split([file for _, _, file in found], Classes(labels), [name for name, _, _ in found])


_HOME = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
# The publisher gives no hashes. The SHA-256 hashes are those recorded in torchvision's prototype; for the training
# images only an MD5 is recorded.
GTSRB = NamedSet(
    _read,
    files=(
        OfficialFile(f"{_HOME}GTSRB_Final_Training_Images.zip", None, md5="f33fd80ac59bff73c82d25ab499e03a3"),
        OfficialFile(
            f"{_HOME}GTSRB_Final_Test_Images.zip", None,
            "48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
        ),
        OfficialFile(
            f"{_HOME}GTSRB_Final_Test_GT.zip", None,
            "f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
        ),
    ),
    classes=43,
    mirror=False,
    licence="free to use for research, with citation; the publisher names no licence",
    citation="Stallkamp et al. 2012, Man vs. computer, Neural Networks 32",
)  # fmt: skip
