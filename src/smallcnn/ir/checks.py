"""Checks of single values in a graph. Each raises GraphError with the value's name, the allowed values and the actual.

This module holds the bounds of a network. All are far above the needs of a small CNN: every registered network is
within them at 1000 x 1000 pixels. They are checked from shapes alone, before anything of that size is allocated.
"""

import reprlib
import sys
from collections.abc import Collection, Sequence
from math import prod
from typing import TypeGuard

from smallcnn.errors import GraphError, closest

MOST = 2**31 - 1
"""Upper limit of any size: larger networks could not run, and a hostile file could use numbers too long to print."""

MOST_NODES = 10_000
MOST_SIDE = 2**14
"""Height or width of any map, in pixels."""
MOST_WINDOW = 2**12
"""Height or width of a kernel, a stride, and the padding on one side."""
MOST_NUMBERS = 2**27
"""Numbers in one result or in a window's input, including padding: 1000 x 1000 pixels of 128 channels."""
MOST_NUMBERS_IN_ALL = 2**32
"""Numbers in all results together, per image."""
MOST_STORED = 2**31
"""Numbers in one stored tensor."""
MOST_WORK = 2**40
"""Multiplications or comparisons of one operator per image."""

_REPR = reprlib.Repr()
_REPR.maxstring = 80  # the longest tensor names have about 50 characters


def shown(value: object) -> str:
    """`repr`, shortened: values from a file may be long."""
    text = _REPR.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_whole(value: object, least: int = 1) -> bool:
    """Whether this is an int, not a bool, from `least` to MOST."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is an int or float that a float can hold; not a bool, infinity or NaN."""
    most = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def positive(name: str, value: object) -> None:
    """Requires a whole number of at least 1."""
    if not is_whole(value):
        raise GraphError(f"{name} must be a whole number from 1 to {MOST}, not {shown(value)}")


def above_zero(name: str, value: object) -> None:
    """Requires a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise GraphError(f"{name} must be a number above 0, not {shown(value)}")


def flag(name: str, value: object) -> None:
    """Requires True or False."""
    if not isinstance(value, bool):
        raise GraphError(f"{name} must be true or false, not {shown(value)}")


def choice(name: str, value: object, choices: Collection[str]) -> None:
    """Requires one of `choices`; the message names the closest."""
    if value not in tuple(choices):
        raise GraphError(f"no {name} {shown(value)}; {closest(value if isinstance(value, str) else '', choices)}")


def window(kernel: object, stride: object, padding: object, dilation: object = (1, 1)) -> None:
    """Requires kernel, stride, dilation (height, width) >= 1 and padding ((top, bottom), (left, right)) >= 0."""
    for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if not _is_pair(value, 1, MOST_WINDOW):
            raise GraphError(
                f"{name} must be (height, width), whole numbers from 1 to {MOST_WINDOW}, not {shown(value)}"
            )
    if not _are_pairs(padding, 0, MOST_WINDOW):
        raise GraphError(
            f"padding must be ((top, bottom), (left, right)), whole numbers from 0 to {MOST_WINDOW}, "
            f"not {shown(padding)}"
        )


def margins(padding: object) -> None:
    """Requires ((top, bottom), (left, right)), whole numbers that may be negative."""
    if not _are_pairs(padding, -MOST_SIDE, MOST_WINDOW):
        raise GraphError(
            f"margins must be ((top, bottom), (left, right)), whole numbers up to {MOST_WINDOW}, not {shown(padding)}"
        )


def result(shape: Sequence[int], verb: str = "gives") -> None:
    """Requires a result of this shape to be within the bounds."""
    if len(shape) == 3 and max(shape[:2]) > MOST_SIDE:
        raise GraphError(f"{verb} {shown(tuple(shape))}; no side may be above {MOST_SIDE}")
    if prod(shape) > MOST_NUMBERS:
        raise GraphError(f"{verb} {shown(tuple(shape))}, {prod(shape):,} numbers; at most {MOST_NUMBERS:,} are allowed")


def stored(name: str, shape: Sequence[int]) -> None:
    """Requires a stored tensor of this shape to be within the bounds."""
    if prod(shape) > MOST_STORED:
        raise GraphError(
            f"needs a {name} {shown(tuple(shape))}, {prod(shape):,} numbers; at most {MOST_STORED:,} are allowed"
        )


def work(count: int) -> None:
    """Requires the work of one operator to be within the bounds."""
    if count > MOST_WORK:
        raise GraphError(f"needs {count:,} operations per image; at most {MOST_WORK:,} are allowed")


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`shape` as (H, W, C); GraphError if it is a vector."""
    if len(shape) != 3:
        raise GraphError(f"needs a map (height, width, channels), not {shape}")
    return shape


def vector(shape: tuple[int, ...]) -> None:
    """Requires a vector (features,)."""
    if len(shape) != 1:
        raise GraphError(f"needs a vector (features,), not {shape}; pool or flatten first")


def _is_pair(value: object, least: int, most: int) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and all(is_whole(item, least) and item <= most for item in value)
    )


def _are_pairs(value: object, least: int, most: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_pair(pair, least, most) for pair in value)
