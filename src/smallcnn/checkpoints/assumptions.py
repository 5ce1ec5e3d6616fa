"""Assumptions about facts a weights file does not state: options of its network and the preparation of its images."""

from dataclasses import replace

from smallcnn import zoo
from smallcnn.checkpoints.layouts import PYTORCH, TORCH, Layout, layouts_of, own
from smallcnn.checkpoints.match_names import Placed, expected, placed
from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector

_UNSEEN = ("padding", "epsilon", "shuffle", "activation")  # options of networks that leave no trace in the weights


def shaping(model: zoo.Configuration) -> dict[str, object]:
    """The options that names and shapes reveal."""
    return {key: value for key, value in model.options.items() if key not in _UNSEEN}


def conventions(model: zoo.Configuration, tensors: Tensors) -> tuple[Layout, zoo.Configuration]:
    """For a file whose names are ignored: the layout whose conventions apply, and the model with their options.

    The layout that shares most names with the file; if none does, that of the first PyTorch publisher, or PyTorch's
    default layers. Options that were given stay.
    """
    ours = own(model.name)
    known = [layout for layout in layouts_of(model.name) if layout.scheme is TORCH]
    usual = known[0] if known else replace(ours, implies=PYTORCH)
    counted = {place(layout, model, tensors).count: layout for layout in (ours, *reversed(known))}
    most = max(counted)
    layout = counted[most] if most else usual
    implied = {key: value for key, value in layout.implies.items() if key in _UNSEEN and key in model.options}
    return layout, replace(model, options=model.options | {key: implied[key] for key in implied.keys() - model.given})


def place(layout: Layout, model: zoo.Configuration, tensors: Tensors) -> Placed:
    """The place in the file of the names this layout gives the model."""
    try:
        return placed(expected(layout, replace(model, options=model.options | layout.implies).build()), tensors)
    except FileError:  # the model has options that the origin's network lacks
        return Placed(0, "")


def usual_images(layout: Layout, graph: Graph) -> Preprocessing:
    """How the origin prepares images for the graph; a grey network uses the averages of the three channels.

    Detectors see all of an image, stretched to their input.
    """
    height, width, channels = graph.input_shape
    mean, std = (values if channels == 3 else (round(sum(values) / 3, 3),) for values in (layout.mean, layout.std))
    if detector(graph):
        return Preprocessing((height, width), mean, std, interpolation=layout.interpolation, fit="stretch")
    return Preprocessing((height, width), mean, std, layout.crop, layout.interpolation)


def assumed(model: zoo.Configuration, used: Preprocessing) -> str:
    """A note on the facts that neither names nor shapes reveal."""
    options = [f"{key}={_short(model.options[key])}" for key in _UNSEEN if key in model.options]
    means = "--as, --mean and --std" if options else "--mean and --std"
    return f"assumed, not stated in the file: {', '.join([*options, *_numbers(used)])}; {means} override that"


def assumed_images(used: Preprocessing) -> str:
    """A note on the image preparation that a file describing its network does not state."""
    return f"assumed, not stated in the file: {', '.join(_numbers(used))}; --mean and --std override that"


def _numbers(used: Preprocessing) -> list[str]:
    return [
        f"{what} {','.join(map(_short, values))}"
        for what, values in (("mean", used.mean), ("standard deviation", used.std))
    ]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
