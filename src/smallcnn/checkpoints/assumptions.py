"""What a file of weights does not say about its network and its images, and what is assumed in its place."""

from dataclasses import replace

from smallcnn import zoo
from smallcnn.checkpoints.layouts import PYTORCH, TORCH, Layout, layouts_of
from smallcnn.data.preprocessing import Preprocessing

_UNSEEN = ("padding", "epsilon", "shuffle", "activation")  # options of networks that leave no trace in the weights
Colours = tuple[tuple[float, ...], tuple[float, ...]]


def shaping(model: zoo.Model) -> dict[str, object]:
    """Those of its options that names and shapes do tell."""
    return {key: value for key, value in model.options.items() if key not in _UNSEEN}


def as_in_pytorch(model: zoo.Model) -> zoo.Model:
    """The model with the conventions of its PyTorch code, or of PyTorch's usual layers, where none were given."""
    known = next((layout.implies for layout in layouts_of(model.name) if layout.scheme is TORCH), PYTORCH)
    usual = {key: known[key] for key in _UNSEEN if key in known and key in model.options and key not in model.given}
    return replace(model, options=model.options | usual)


def colours(layout: Layout, channels: int) -> Colours:
    """Mean and standard deviation; a grey network's are the averages of the three."""
    if channels == len(layout.mean):
        return layout.mean, layout.std
    return (round(sum(layout.mean) / 3, 3),), (round(sum(layout.std) / 3, 3),)


def assumed(model: zoo.Model, used: Preprocessing) -> str:
    """A note of what neither names nor shapes tell."""
    options = [f"{key}={_short(model.options[key])}" for key in _UNSEEN if key in model.options]
    means = "--as, --mean and --std" if options else "--mean and --std"
    return f"assumed, as the file does not say it: {', '.join([*options, *_numbers(used)])}; {means} change that"


def assumed_images(used: Preprocessing) -> str:
    """A note of what a file that describes its network does not tell of images."""
    return f"assumed, as the file does not say it: {', '.join(_numbers(used))}; --mean and --std change that"


def _numbers(used: Preprocessing) -> list[str]:
    return [
        f"{what} {','.join(map(_short, values))}"
        for what, values in (("mean", used.mean), ("standard deviation", used.std))
    ]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
