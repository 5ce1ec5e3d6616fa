"""Checks of single values of a graph. Each raises GraphError with the value's name, what is allowed and what came."""

import reprlib
import sys
from collections.abc import Collection
from typing import TypeGuard

from smallcnn.errors import GraphError, closest

MOST = 2**31 - 1
"""No size in a network is larger: it could not be run, and a hostile file could make numbers too long to print."""


_REPR = reprlib.Repr()
_REPR.maxstring = 80  # the longest tensor names have about 50


def shown(value: object) -> str:
    """`repr`, cut short: what a file holds may be long."""
    text = _REPR.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_whole(value: object, least: int = 1) -> bool:
    """Whether this is an int, and no bool, from `least` to MOST."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is an int or float, and no bool, infinity or NaN, that a float can hold."""
    most = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def positive(name: str, value: object) -> None:
    """A whole number of at least 1."""
    if not is_whole(value):
        raise GraphError(f"{name} must be a whole number from 1 to {MOST}, not {shown(value)}")


def above_zero(name: str, value: object) -> None:
    """A finite number above 0."""
    if not is_number(value) or value <= 0:
        raise GraphError(f"{name} must be a number above 0, not {shown(value)}")


def flag(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise GraphError(f"{name} must be true or false, not {shown(value)}")


def choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of `choices`; the message names the closest."""
    if value not in tuple(choices):
        raise GraphError(f"no {name} {shown(value)}; {closest(value if isinstance(value, str) else '', choices)}")


def window(kernel: object, stride: object, padding: object) -> None:
    """Kernel and stride (height, width) of at least 1, padding ((top, bottom), (left, right)) of at least 0."""
    for name, value in (("kernel", kernel), ("stride", stride)):
        if not _is_pair(value, least=1):
            raise GraphError(f"{name} must be (height, width), whole numbers of at least 1, not {shown(value)}")
    if not (isinstance(padding, tuple) and len(padding) == 2 and all(_is_pair(pads, least=0) for pads in padding)):
        raise GraphError(
            f"padding must be ((top, bottom), (left, right)), whole numbers of at least 0, not {shown(padding)}"
        )


def margins(padding: object) -> None:
    """((top, bottom), (left, right)), whole numbers that may be negative."""
    if not (isinstance(padding, tuple) and len(padding) == 2 and all(_is_pair(pads, least=-MOST) for pads in padding)):
        raise GraphError(f"margins must be ((top, bottom), (left, right)), whole numbers, not {shown(padding)}")


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`shape` as (H, W, C); GraphError if it is a vector."""
    if len(shape) != 3:
        raise GraphError(f"needs a map (height, width, channels), not {shape}")
    return shape


def vector(shape: tuple[int, ...]) -> None:
    """(features,)."""
    if len(shape) != 1:
        raise GraphError(f"needs a vector (features,), not {shape}; pool or flatten first")


def _is_pair(value: object, least: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(is_whole(item, least) for item in value)
