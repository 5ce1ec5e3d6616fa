"""The networks by name, and the text form of a model: `mobilenet_v1:width=0.5,variant=shallow`."""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from smallcnn.errors import GraphError, closest
from smallcnn.graph import Graph

Architecture = Callable[..., Graph]
F = TypeVar("F", bound=Architecture)
_REGISTRY: dict[str, Architecture] = {}

COMMON = ("resolution", "classes", "channels")
"""Options every network has; on the command line they are options of the command, not of the model."""


def register(function: F) -> F:
    """Adds a network under its function's name."""
    if function.__name__ in _REGISTRY:
        raise ValueError(f"two networks are called {function.__name__}")
    _REGISTRY[function.__name__] = function
    return function


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

    def parse(self, text: str) -> Any:
        """The value written as `text`; GraphError saying what is allowed."""
        try:
            if self.choices:
                return self.choices[self.choices.index(text)]
            if self.type is bool:
                return {"true": True, "false": False}[text.lower()]
            return self.type(text)
        except (ValueError, KeyError):
            allowed = " or ".join(self.choices) or {bool: "true or false", int: "a whole number"}.get(
                self.type, "a number"
            )
            raise GraphError(f"{self.name} must be {allowed}, not {text!r}") from None


def options(name: str) -> dict[str, Option]:
    """The own options of a network, without the common ones."""
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
    """A network with its own options, all of them spelled out."""

    name: str
    options: dict[str, Any]

    def build(self, **common: Any) -> Graph:
        """The graph; `common` are resolution, classes and channels."""
        return architecture(self.name)(**self.options, **common)

    def __str__(self) -> str:
        """The text form with every option that is not at its default."""
        return spell(self.name, self.options)


def spell(name: str, chosen: dict[str, Any]) -> str:
    """`name:option=value,...` with the options that are not at their default."""
    defaults = {option.name: option.default for option in options(name).values()}
    changed = [f"{key}={_spell(value)}" for key, value in chosen.items() if value != defaults[key]]
    return f"{name}:{','.join(changed)}" if changed else name


def parse(text: str) -> Model:
    """Reads `name` or `name:option=value,...`; GraphError naming what is wrong and what would be right."""
    name, _, rest = text.partition(":")
    known = options(name)
    chosen = {option.name: option.default for option in known.values()}
    for item in rest.split(",") if rest else []:
        key, equals, value = item.partition("=")
        if key not in known:
            hint = f"{key} is an option of the command, --{key}" if key in COMMON else closest(key, known)
            raise GraphError(f"{name} has no option {key!r}; {hint}")
        if not equals:
            raise GraphError(f"{name}: write {key}=VALUE, not {item!r}")
        chosen[key] = known[key].parse(value)
    return Model(name, chosen)


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
