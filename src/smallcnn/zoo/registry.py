"""The networks by name, and the text form of a model: `mobilenet_v1:width=0.5,variant=shallow`."""

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from smallcnn.errors import GraphError, closest
from smallcnn.ir import checks
from smallcnn.ir.graph import Graph

Architecture = Callable[..., Graph]
F = TypeVar("F", bound=Architecture)
_REGISTRY: dict[str, Architecture] = {}

COMMON = ("resolution", "classes", "channels")
"""Options every network has; on the command line they are options of the command, not of the model."""


def register(function: F) -> F:
    """Registers a network under its function's name and checks its own options before it runs."""
    name = function.__name__
    if name in _REGISTRY:
        raise ValueError(f"two networks are named {name}")

    @functools.wraps(function)
    def checked(**chosen: Any) -> Graph:
        for key, option in options(name).items():
            option.check(chosen.get(key, option.default))
        return function(**chosen)

    _REGISTRY[name] = checked
    return cast(F, checked)


def plane(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the input; GraphError unless `resolution` is one side or such a pair."""
    height, width = resolution if isinstance(resolution, tuple) and len(resolution) == 2 else (resolution,) * 2
    if not (checks.is_whole(height) and checks.is_whole(width)):
        raise GraphError(
            f"resolution must be (height, width) or one number for both, at least 1, not {checks.shown(resolution)}"
        )
    return height, width


def names() -> list[str]:
    """Every network, sorted."""
    return sorted(_REGISTRY)


@dataclass(frozen=True)
class Option:
    """One keyword of a network: its type, default and, for a choice, the values allowed."""

    name: str
    type: type
    default: Any
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return " or ".join(self.choices) or {bool: "true or false", int: "a whole number"}.get(self.type, "a number")

    def check(self, value: Any) -> None:
        """GraphError unless `value` is of this option's kind."""
        kind = int | float if self.type is float else self.type
        good = value in self.choices if self.choices else isinstance(value, kind)
        fits = self.type is not float or not isinstance(value, int) or abs(value) <= checks.MOST
        if not good or not fits or (isinstance(value, bool) and self.type is not bool):
            raise GraphError(f"{self.name} must be {self.allowed}, not {checks.shown(value)}")

    def parse(self, text: str) -> Any:
        """The value written as `text`; GraphError saying what is allowed."""
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (ValueError, KeyError):
            value = text
        self.check(value)
        return value


def options(name: str) -> dict[str, Option]:
    """A network's own options, without the common ones."""
    function = architecture(name)
    hints = typing.get_type_hints(function)
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if key not in COMMON:
            choices = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
            found[key] = Option(key, str if choices else hints[key], parameter.default, choices)
    return found


def architecture(name: str) -> Architecture:
    """The function that builds a network; GraphError with the closest names if there is none."""
    if name not in _REGISTRY:
        raise GraphError(f"no model {name!r}; {closest(name, _REGISTRY)}")
    return _REGISTRY[name]


@dataclass(frozen=True)
class Model:
    """A network with all of its own options; `given` are those named in its text form."""

    name: str
    options: dict[str, Any]
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def build(self, **common: Any) -> Graph:
        """The graph; `common` are resolution, classes and channels."""
        return architecture(self.name)(**self.options, **common)

    def __str__(self) -> str:
        """The text form, with every option that is not at its default."""
        return spell(self.name, self.options)


def spell(name: str, chosen: dict[str, Any]) -> str:
    """`name:option=value,...` with the options that are not at their default."""
    defaults = {option.name: option.default for option in options(name).values()}
    changed = [f"{key}={_spell(value)}" for key, value in chosen.items() if value != defaults[key]]
    return f"{name}:{','.join(changed)}" if changed else name


def parse(text: str) -> Model:
    """Reads `name` or `name:option=value,...`; GraphError naming the mistake and the valid values."""
    name, _, rest = text.partition(":")
    known = options(name)
    given: dict[str, Any] = {}
    for item in rest.split(",") if rest else []:
        key, equals, value = item.partition("=")
        if key not in known:
            hint = f"{key} is an option of the command, --{key}" if key in COMMON else closest(key, known)
            raise GraphError(f"{name} has no option {key!r}; {hint}")
        if not equals:
            raise GraphError(f"{name}: write {key}=VALUE, not {item!r}")
        if key in given:
            raise GraphError(f"{name}: {key} is given twice")
        given[key] = known[key].parse(value)
    return Model(name, {key: given.get(key, option.default) for key, option in known.items()}, frozenset(given))


def _spell(value: Any) -> str:
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value).lower() if isinstance(value, bool) else str(value)
