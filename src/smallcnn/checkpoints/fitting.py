"""Recognises which registered network a file of tensors holds, by names and shapes, or names the nearest ones."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from smallcnn import zoo
from smallcnn.checkpoints.assumptions import shaping
from smallcnn.checkpoints.catalogue import CATALOGUE
from smallcnn.checkpoints.layouts import LAYOUTS, Layout, own
from smallcnn.checkpoints.match_keras import by_kind, is_automatic, keras_ends, numbered
from smallcnn.checkpoints.match_names import Expected, built_for, expected, lay, missing_tail, placed
from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError, GraphError
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector

_NUMBERS: dict[str, tuple[float, ...]] = {  # options that papers and publishers vary, besides switches and choices
    "width": (1.0, 0.25, 0.5, 0.75, 0.35, 1.3, 1.4, 0.1, 0.2, 1.25, 1.5, 2.0),
    "scale": (1.0, 0.5, 1.5, 2.0, 0.25),
    "groups": (3, 1, 2, 4, 8),
}
_Fit = Literal["whole", "headless", "among others"]
_NEAR = 0.5  # share of names or tensors in common with the file that makes a network worth trying or naming


def recognised(tensors: Tensors) -> tuple[zoo.Configuration, str]:
    """The one network with the file's names and shapes, its head possibly cut off, and a note that says so.

    Raises FileError if there is none, naming near ones, or if there are several.
    """
    fits: dict[_Fit, dict[str, zoo.Configuration]] = {"whole": {}, "headless": {}, "among others": {}}
    for model, fit in _by_kind(tensors) if is_automatic(tensors) else _by_name(tensors):
        fits[fit].setdefault(str(model), model)
    best = next((models for models in fits.values() if models), {})
    if len(best) == 1:
        ((text, model),) = best.items()
        return model, f"recognised as {text} by its names and shapes; --as overrides that"
    if best:
        raise FileError(f"its names and shapes fit {' and '.join(best)}; choose one with --as")
    raise FileError(_near(tensors))


def _by_name(tensors: Tensors) -> Iterator[tuple[zoo.Configuration, _Fit]]:
    for one in _usual():
        place = placed(one.expected, tensors)
        if place.count >= _NEAR * one.tensors:
            inside, _ = place.of(tensors)
            for model, fit in _best_fit(one.layout, one.layout.of_file(inside), one.model):
                if fit == "whole" or not one.detects:  # a classifier's file has a large part of a detector's names
                    yield model, fit


@dataclass(frozen=True)
class _Usual:
    """A layout's network with its usual options."""

    layout: Layout
    model: zoo.Configuration
    expected: Expected
    tensors: int
    detects: bool


@cache
def _usual() -> tuple[_Usual, ...]:
    """Of all layouts and all registered networks."""
    found = []
    for layout in (*LAYOUTS, *map(own, zoo.names())):
        model = zoo.parse(layout.model)
        graph = replace(model, options=model.options | layout.implies).build()
        detects = detector(graph) is not None
        found.append(_Usual(layout, model, expected(layout, graph), len(graph.weights), detects))
    return tuple(found)


def _best_fit(layout: Layout, tensors: Tensors, usual: zoo.Configuration) -> Iterator[tuple[zoo.Configuration, _Fit]]:
    """The variant of the layout's network that takes most of the tensors; the first of them, if there is one."""
    best: tuple[zoo.Configuration, _Fit] | None = None
    most = 0
    for model in _variants(usual, switches=layout.same_names):
        implied = replace(model, options=model.options | layout.implies)
        try:
            graph, _ = built_for(layout, implied, tensors)
            names = {name for own_names in layout.names(graph).values() for name in own_names.values()}
            inside = {name: value for name, value in tensors.items() if name in names}
            tail = missing_tail(layout, graph, inside)
            lay(layout, graph, inside, without=tail)
        except (FileError, GraphError):
            continue
        if len(inside) > most:
            most = len(inside)
            best = model, "among others" if most < len(tensors) else "headless" if tail else "whole"
        if most == len(tensors):
            break
    if best:
        yield best


def _by_kind(tensors: Tensors) -> Iterator[tuple[zoo.Configuration, _Fit]]:
    """Fits by layer kind and order, as in `match_keras`: Keras' automatic names carry no information."""
    channels, classes, bias = keras_ends(tensors)
    for text in _known():
        model = zoo.parse(text)
        if "bias" in model.options:
            model = replace(model, options=model.options | {"bias": bias})
        with suppress(FileError, GraphError):
            graph = model.build(classes=classes or 1000, channels=channels)
            by_kind(graph, numbered(tensors), fresh_head=classes is None)
            yield replace(model, options=zoo.parse(model.name).options | shaping(model)), "whole"


def _variants(usual: zoo.Configuration, *, switches: bool) -> Iterator[zoo.Configuration]:
    """The network in all its sizes; with `switches` also with each switch flipped and each other choice."""
    changes: list[dict[str, object]] = [{}]
    for option in zoo.options(usual.name).values() if switches else ():
        others = option.choices or ((False, True) if option.type is bool else ())
        changes += [{option.name: other} for other in others if other != option.default]
    sizes = [{key: value} for key in _NUMBERS if key in usual.options for value in _NUMBERS[key]]
    for change in changes:
        for size in sizes or [{}]:
            yield replace(usual, options=usual.options | change | size)


def _near(tensors: Tensors) -> str:
    """The message for a file that no network fits by name: networks it fits in order, or nearly."""
    theirs = [_size(value.shape) for value in tensors.values()]
    shares: dict[str, float] = {}
    ordered: list[str] = []
    for text in _known():
        graph = zoo.parse(text).build()
        ours = [_size(weight.shape) for weight in graph.weights.values()]
        common = (Counter(ours) & Counter(theirs)).total()
        shares[text] = common / max(len(ours), len(theirs))
        if _in_order(graph, tensors):
            ordered.append(text)
    if ordered:
        return (
            f"its names match no known layout, but its shapes match {' and '.join(ordered)} in order: "
            f"--as {ordered[0]} --origin order imports it that way"
        )
    near = [text for text in sorted(shares, key=lambda text: -shares[text])[:2] if shares[text] >= _NEAR]
    closest = "; closest: " + ", ".join(f"{text} ({shares[text]:.0%} of the tensors)" for text in near) if near else ""
    return (
        f"no registered network fits its names and shapes{closest}; see `smallcnn list`, name one with --as, or import "
        "a network of your own as .onnx (torch.onnx.export)"
    )


def _in_order(graph: Graph, tensors: Tensors) -> bool:
    """Whether all tensors except the last layer's have the network's sizes, one by one."""
    ours = list(graph.weights.items())
    last = ours[-1][0].rpartition(".")[0]
    return len(ours) == len(tensors) and all(
        name.startswith(f"{last}.") or _size(weight.shape) == _size(value.shape)
        for (name, weight), value in zip(ours, tensors.values(), strict=True)
    )


def _size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its ones and regardless of axis order."""
    return tuple(sorted(side for side in shape if side != 1))


def _known() -> list[str]:
    """The publishers' variants, and every registered network."""
    published = [checkpoint.model for checkpoint in CATALOGUE.values()]
    laid_out = [zoo.spell(layout.model, zoo.parse(layout.model).options | layout.implies) for layout in LAYOUTS]
    return list(dict.fromkeys([*zoo.names(), *published, *laid_out]))
