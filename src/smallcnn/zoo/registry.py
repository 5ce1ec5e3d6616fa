"""The networks by name, and the text form of one: `mobilenet_v1:width=0.5,variant=shallow`.

An architecture is a function `(builder, *, its own options, **common) -> Graph`. Registered, it is a function of the
options alone: the registry makes the builder for the input, names the graph, checks every option and knows the defaults
of the common ones.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, Unpack, cast, overload

from smallcnn.errors import GraphError, closest
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.zoo.options import COMMON, Common, Option, options_of, plane

P = ParamSpec("P")
Architecture = Callable[Concatenate[Builder, P], Graph]
_REGISTRY: dict[str, Callable[..., Graph]] = {}


@overload
def register(function: Architecture[P], /) -> Callable[P, Graph]: ...
@overload
def register(*, resolution: int = ..., classes: int = ...) -> Callable[[Architecture[P]], Callable[P, Graph]]: ...
def register(function: Architecture[P] | None = None, /, *, resolution: int = 224, classes: int = 1000) -> Any:
    """Registers an architecture under its function's name, with these defaults of the common options."""
    defaults = Common(resolution=resolution, classes=classes, channels=3)
    return _registered(function, defaults) if function else lambda function: _registered(function, defaults)


def _registered(function: Callable[..., Graph], defaults: Common) -> Callable[..., Graph]:
    name = function.__name__
    if name in _REGISTRY:
        raise ValueError(f"two networks are named {name}")
    own = [value for value in inspect.signature(function).parameters.values() if value.kind is value.KEYWORD_ONLY]
    shared = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=defaults[key]) for key in defaults]  # type: ignore[literal-required]
    signature = inspect.Signature([*own, *shared], return_annotation=Graph)

    @functools.wraps(function)
    def build(**chosen: Any) -> Graph:
        signature.bind(**chosen)  # a TypeError names an unknown keyword
        picked = {option.name: chosen.get(option.name, option.default) for option in options_of(function).values()}
        for key, option in options_of(function).items():
            option.check(picked[key])
            if option.is_network:
                picked[key] = str(parse(picked[key]))
        common = cast(Common, defaults | {key: chosen[key] for key in COMMON if key in chosen})
        g = Builder(input=(*plane(common["resolution"]), common["channels"]), name=spell(name, picked))
        return function(g, **picked, **common)

    build.__signature__ = signature  # type: ignore[attr-defined]
    _REGISTRY[name] = build
    return build


def names() -> list[str]:
    """Every network, sorted."""
    return sorted(_REGISTRY)


def options(name: str) -> dict[str, Option]:
    """A network's own options, without the common ones."""
    return dict(options_of(inspect.unwrap(architecture(name))))


def architecture(name: str) -> Callable[..., Graph]:
    """The function of the options that builds a network; GraphError with the closest names if there is none."""
    if name not in _REGISTRY:
        raise GraphError(f"no model {name!r}; {closest(name, _REGISTRY)}")
    return _REGISTRY[name]


@dataclass(frozen=True)
class Configuration:
    """A registered network with a value for each of its own options; `given` are those named in its text form."""

    name: str
    options: dict[str, Any]
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def build(self, **common: Unpack[Common]) -> Graph:
        """The graph."""
        return architecture(self.name)(**self.options, **common)

    def __str__(self) -> str:
        """The text form, with every option that is not at its default."""
        return spell(self.name, self.options)


def spell(name: str, chosen: dict[str, Any]) -> str:
    """`name:option=value,...` with the options that are not at their default."""
    known = options(name)
    changed = [f"{key}={_spell(known[key], value)}" for key, value in chosen.items() if value != known[key].default]
    return f"{name}:{','.join(changed)}" if changed else name


def parse(text: str) -> Configuration:
    """Reads `name` or `name:option=value,...`; GraphError naming the mistake and the valid values."""
    name, _, rest = text.partition(":")
    known = options(name)
    items = [item.partition("=") for item in rest.split(",")] if rest else []
    part = next((option for option in known.values() if option.is_network), None)
    inner = part and parse(next((value for key, _, value in items if key == part.name), part.default))
    allowed = (options(inner.name) if inner else {}) | known
    given: dict[str, Any] = {}
    for key, equals, value in items:
        if key not in allowed:
            hint = f"{key} is an option of the command, --{key}" if key in COMMON else closest(key, allowed)
            raise GraphError(f"{name} has no option {key!r}; {hint}")
        if not equals:
            raise GraphError(f"{name}: write {key}=VALUE, not {key!r}")
        if key in given:
            raise GraphError(f"{name}: {key} is given twice")
        given[key] = allowed[key].parse(value)
    if part and inner:
        passed_on = {key: given.pop(key) for key in allowed if key in given and key not in known}
        if passed_on or part.name in given:
            given[part.name] = str(replace(inner, options=inner.options | passed_on))
    return Configuration(name, {key: given.get(key, option.default) for key, option in known.items()}, frozenset(given))


def _spell(option: Option, value: Any) -> str:
    if option.is_network:
        return str(value).replace(":", ",", 1)
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value).lower() if isinstance(value, bool) else str(value)
