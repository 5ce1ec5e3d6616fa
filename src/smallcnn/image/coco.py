"""The 80 classes of COCO (Lin et al. 2014, arXiv 1405.0312), which its annotations number from 1 to 90.

`coco.txt` has one line per class: its number and its name, as annotations have them. Public detectors have a score for
each of the 90 numbers.
"""

from functools import cache
from importlib.resources import files

UNUSED = "n/a"
"""Label of the ten numbers without a class."""

_NUMBERS = 90


@cache
def _names() -> dict[int, str]:
    lines = files("smallcnn.image").joinpath("coco.txt").read_text("utf-8").splitlines()
    return {int(number): name for number, _, name in (line.partition(" ") for line in lines)}


def labels() -> tuple[str, ...]:
    """The 80 names, by number."""
    return tuple(_names().values())


def by_number() -> tuple[str, ...]:
    """A label for each number from 1 to 90."""
    return tuple(_names().get(number, UNUSED) for number in range(1, _NUMBERS + 1))
