"""Matches the names of a file to the known layouts of a network."""

from dataclasses import dataclass, replace

from smallcnn import zoo
from smallcnn.checkpoints.assumptions import place
from smallcnn.checkpoints.layouts import OWN, Layout, layouts_of, own
from smallcnn.checkpoints.match_names import Placed, listed
from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError, closest
from smallcnn.ir.checks import shown

ORDER = "order"
"""The origin that ignores names and takes tensors in file order."""


@dataclass(frozen=True)
class Match:
    """The layout that a file has, the model it implies, the tensors under the layout's names, and notes to the user."""

    layout: Layout
    model: zoo.Configuration
    tensors: Tensors
    notes: tuple[str, ...]


def match(tensors: Tensors, model: zoo.Configuration, origin: str | None) -> Match:
    """The layout that has the file's names, among all known ones of the model or those of one `origin`.

    Raises FileError if no layout or several layouts have the file's names.
    """
    known = [*layouts_of(model.name), own(model.name)]
    origins = [layout.origin for layout in known]
    if origin is not None and origin not in origins:
        raise FileError(f"no origin {origin!r} of {model.name}; {closest(origin, [*origins, ORDER])}")
    where = [(place(layout, model, tensors), layout) for layout in known if origin in (None, layout.origin)]
    most = max(place.count for place, _ in where)
    best = [(place, layout) for place, layout in where if place.count == most]
    if not most:
        public = [name for name in dict.fromkeys(origins) if name != OWN]
        whose = f"are not those of {' or '.join(public)} for" if public else "match no known layout of"
        raise FileError(
            f"its names ({listed(list(tensors))}) {whose} {model.name}; "
            f"--origin {ORDER} ignores names, if the file has its layers in execution order"
        )
    if len(best) > 1:  # torchvision's GoogLeNet has our names except for its last layer
        best = [(place, layout) for place, layout in best if layout.origin != OWN]
    if len(best) > 1:
        raise FileError(
            "its names fit several origins, which differ in padding or epsilon; choose one with --origin: "
            + " or ".join(layout.origin for _, layout in best)
        )
    ((spot, layout),) = best
    inside, others = spot.of(tensors)
    return Match(layout, _as_implied(model, layout), inside, tuple(_told(spot, others)))


def _told(place: Placed, others: list[str]) -> list[str]:
    """Notes on where the weights were found among other tensors."""
    rivals = [
        f"as many names fit below {' and '.join(map(shown, place.rivals))}; used those below {shown(place.prefix)}"
    ]
    left = [f"ignored, not part of the network: {listed(others)}"]
    return rivals * bool(place.rivals) + left * bool(others)


def _as_implied(model: zoo.Configuration, layout: Layout) -> zoo.Configuration:
    """The model with the options these weights need; FileError if a given option conflicts."""
    for key, value in layout.implies.items():
        if key in model.given and model.options[key] != value:
            raise FileError(f"weights of {layout.origin} need {key}={value}, not {key}={model.options[key]}")
    return replace(model, options=model.options | layout.implies)
