"""The options of a network: their kinds, what they may be, and the values a search walks."""

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin

from smallcnn.errors import GraphError
from smallcnn.ir import checks


class Common(TypedDict, total=False):
    """Options every network has; on the command line they are options of the command, not of the model.

    `resolution` is one side or (height, width), in pixels; `channels` are those of the image.
    """

    resolution: int | tuple[int, int]
    classes: int
    channels: int


COMMON = tuple(Common.__annotations__)


@dataclass(frozen=True)
class Allowed:
    """The numbers an option may be: `text` says so after "must be", `values` are those in use, which a search walks."""

    text: str
    test: Callable[[float], bool]
    values: tuple[float, ...] = ()
    note: str = ""
    """Who uses which values; ends an error message."""


def one_of(*values: float) -> Allowed:
    """These values and no others."""
    *some, last = (f"{value:g}" for value in values)
    return Allowed(f"{', '.join(some)} or {last}", lambda value: value in values, values)


class _Network:
    """Marks an option that is another network, in its text form."""


NETWORK = _Network()


def multiplier(*values: float, note: str = "") -> Allowed:
    """A multiplier of channels."""
    return Allowed("above 0 and at most 8", lambda value: 0 < value <= 8, values, note)


_KINDS = {bool: "true or false", int: "a whole number", str: "the name of a network"}


@dataclass(frozen=True)
class Option:
    """One keyword of a network: its type, default and, for a choice of words, the words.

    If it `is_network`, its value is the text form of another network, and that network's options are written beside it:
    `ssd:backbone=mobilenet_v1,width=0.5` has the backbone `mobilenet_v1:width=0.5`.
    """

    name: str
    type: type
    default: Any
    choices: tuple[str, ...] = ()
    numbers: Allowed | None = None
    is_network: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return " or ".join(self.choices) or _KINDS.get(self.type, "a number")

    @property
    def values(self) -> tuple[Any, ...]:
        """The values a search walks: all of them, or the numbers in use; the default alone if none are known."""
        if self.type is bool:
            return (False, True)
        return self.choices or (self.numbers.values if self.numbers else ()) or (self.default,)

    def check_kind(self, value: Any) -> None:
        """GraphError unless `value` is of this option's kind."""
        kind = int | float if self.type is float else self.type
        good = value in self.choices if self.choices else isinstance(value, kind)
        fits = self.type is not float or not isinstance(value, int) or abs(value) <= checks.MOST
        if not good or not fits or (isinstance(value, bool) and self.type is not bool):
            raise GraphError(f"{self.name} must be {self.allowed}, not {checks.shown(value)}")

    def check(self, value: Any) -> None:
        """GraphError unless `value` is of this option's kind and among its numbers."""
        self.check_kind(value)
        if self.numbers and not self.numbers.test(value):
            note = f"; {self.numbers.note}" if self.numbers.note else ""
            shown = f"{value:g}" if self.type is float else checks.shown(value)
            raise GraphError(f"{self.name} must be {self.numbers.text}, not {shown}{note}")

    def parse(self, text: str) -> Any:
        """The value written as `text`; GraphError saying what is allowed."""
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (ValueError, KeyError):
            value = text
        self.check_kind(value)
        return value


@functools.cache
def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The options that a function takes as keywords, by name, from their annotations."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            hint, *extra = get_args(hints[key]) if get_origin(hints[key]) is Annotated else (hints[key],)
            words = get_args(hint) if get_origin(hint) is Literal else ()
            numbers = next((one for one in extra if isinstance(one, Allowed)), None)
            found[key] = Option(key, str if words else hint, parameter.default, words, numbers, NETWORK in extra)
    return found


def plane(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the input; GraphError unless `resolution` is one side or such a pair."""
    height, width = resolution if isinstance(resolution, tuple) and len(resolution) == 2 else (resolution,) * 2
    if not (checks.is_whole(height) and checks.is_whole(width)):
        raise GraphError(
            f"resolution must be (height, width) or one number for both, at least 1, not {checks.shown(resolution)}"
        )
    return height, width
