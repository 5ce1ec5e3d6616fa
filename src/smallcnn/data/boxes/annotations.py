"""What annotation files say about images, as it stands there: the common result of all readers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import PurePosixPath

import numpy as np

from smallcnn.data.tree import SPLITS
from smallcnn.tasks.labels import some

_OWN = SPLITS | {"training": "train", "trainval": "train", "testing": "test", "eval": "val"}
_FOLDER = re.compile(
    rf"(?:images?[-_ ]?)?({'|'.join(_OWN)})(?:[-_ ]?(?:images?|imgs?|labels?|sets?|data|\d{{2,4}}))*", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class Annotated:
    """One image of the set and the objects in it.

    `rows` (n, 7) have the columns of `data.targets.Boxes`, with sides in pixels of an image of `size` (width, height),
    and NaN for an area that is not stated. `size` is (1, 1) if the sides are fractions, and None if it is not stated:
    then sides are in pixels of the image. `split` is empty if the annotations do not say.
    """

    name: str
    rows: np.ndarray
    size: tuple[float, float] | None = None
    split: str = ""


@dataclass(frozen=True)
class Annotations:
    """The images that annotation files describe, the labels they use, and lines on what is missing.

    `used` are the names of those files.
    """

    labels: tuple[str, ...]
    images: Sequence[Annotated]
    used: Sequence[str]
    notes: Sequence[str] = ()


@dataclass
class Faults:
    """Defects by kind, each with its count and where the first one is."""

    _found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, what: str, where: str, count: int = 1) -> None:
        """Notes `count` defects of a kind."""
        if count:
            before, first = self._found.get(what, (0, where))
            self._found[what] = (before + count, first)

    def __bool__(self) -> bool:
        return bool(self._found)

    def lines(self) -> list[str]:
        """One line per kind: what, how many, where the first one is."""
        return [f"{what}: {count:,} (first: {shown(where)})" for what, (count, where) in self._found.items()]


def stated(width: float, height: float) -> tuple[float, float] | None:
    """The size of an image as annotations state it; None if they do not, as by 0 or NaN."""
    return (width, height) if min(width, height) >= 1 and isfinite(width + height) else None


def shown(where: str) -> str:
    """A name or a place in a file for a message: in one line, and not too long."""
    text = where.encode("utf-8", "replace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 120 else f"{text[:60]}...{text[-57:]}"


def split_of_folder(name: str) -> str:
    """The split that one of the folders around a file names (train, val2017, test_images), or nothing."""
    for folder in reversed(PurePosixPath(name).parts[:-1]):
        if found := _FOLDER.fullmatch(folder):
            return _OWN[found[1].lower()]
    return ""


def split_of_file(name: str) -> str:
    """The split that the name of an annotation file says (instances_train2017.json), else that of its folders."""
    words = re.findall(r"[a-z]+", PurePosixPath(name).stem.lower())
    return next((_OWN[word] for word in words if word in _OWN), "") or split_of_folder(name)


class Labels:
    """Labels in the order in which they are first met."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def number(self, name: str) -> int:
        """The number of a label, which is added if it is new."""
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> tuple[str, ...]:
        """All labels."""
        return tuple(self._numbers)


def listed(names: Sequence[str]) -> str:
    """The first of the names, in one line."""
    return some([shown(name) for name in names], 3)
