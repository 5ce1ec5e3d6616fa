"""What `smallcnn predict` does with the objects of a detector: chooses among them, draws them, writes them for COCO."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smallcnn.cli.show import remark
from smallcnn.errors import DataError, FileError, closest
from smallcnn.image.decode import decode
from smallcnn.image.draw import colour, draw
from smallcnn.runtime import Net
from smallcnn.system.files import atomic, check_writable, make_folder, write
from smallcnn.tasks.coco import results
from smallcnn.tasks.detection import DetectionAnswer, detection

_JPEG = (".jpg", ".jpeg")


class Objects:
    """The objects with one of the labels, `labels` separated by commas.

    `folder` is for the images with the objects drawn, `coco` for the results file; None means all and none. Raises
    GraphError if one is given for another network than a detector, DataError for a label that it does not know.
    """

    def __init__(self, net: Net, labels: str | None, folder: Path | None, coco: Path | None) -> None:
        given = {"--labels": labels, "--draw": folder, "--coco": coco}
        for name in (name for name, value in given.items() if value is not None):
            detection(net.task, name)
        wanted = net.labels if labels is None else [name.strip() for name in labels.split(",")]
        if unknown := [name for name in wanted if name not in net.labels]:
            raise DataError(f"the network does not know {unknown[0]!r}; {closest(unknown[0], net.labels)}")
        self._all = labels is None
        self._numbers = {number for number, label in enumerate(net.labels) if label in wanted}
        self._folder, self._coco = folder, coco
        self._places: list[Path] = []
        self._found: dict[str, DetectionAnswer] = {}

    def start(self, names: Sequence[Path]) -> None:
        """Raises FileError if one of the files for images of these relative names exists, WriteError."""
        if self._folder:
            self._places = places(self._folder, names)
        if self._coco:
            check_writable(self._coco)

    def keep(self, number: int, image: Path, answer: Any) -> Any:
        """What is kept of the answer to the image of this number, once it is drawn. Another network's is unchanged."""
        if not self._all:
            answer = answer.take([place for place, one in enumerate(answer.classes.tolist()) if one in self._numbers])
        if self._folder:
            _write(self._places[number], image, answer)
        if self._coco:
            self._found[str(image)] = answer
        return answer

    def finish(self) -> None:
        """Writes the results file."""
        if self._coco:
            write(self._coco, json.dumps(results(list(self._found), list(self._found.values()))).encode())
            remark(f"results: {self._coco}")


def places(folder: Path, names: Sequence[Path]) -> list[Path]:
    """A file in `folder` for each image of these relative names: a JPEG for a JPEG, else a PNG.

    Of equal names, the later ones are numbered. Raises FileError if one of the files exists.
    """
    found: dict[Path, None] = {}
    for name in names:
        suffix = name.suffix if name.suffix.lower() in _JPEG else ".png"
        place, number = folder / name.with_suffix(suffix), 1
        while place in found:
            number += 1
            place = folder / name.with_name(f"{name.stem}-{number}{suffix}")
        found[place] = None
    if taken := next((place for place in found if place.exists()), None):
        raise FileError(f"{taken} exists already; give --draw another folder")
    return list(found)


def _write(place: Path, image: Path, answer: DetectionAnswer) -> None:
    captions = [f"{one.label} {one.score:.0%}" for one in answer.found]
    drawn = draw(decode(image, 3).image, answer.boxes, captions, [colour(number) for number in answer.classes.tolist()])
    make_folder(place.parent)
    with atomic(place) as temporary:
        if place.suffix.lower() in _JPEG:
            drawn.save(temporary, "JPEG", quality=92)
        else:
            drawn.save(temporary, "PNG")
