"""The lines at the start of a run: what is trained, on what, and how."""

from collections.abc import Iterator

import torch

from smallcnn.data.sources import Source
from smallcnn.train.ranks import Ranks
from smallcnn.train.settings import Settings

_NAMED = 10  # labels to name
_MOST_USED = 0.9  # share of the images in whole batches, below which a note says so


def lines(settings: Settings, source: Source, device: str, ranks: Ranks) -> Iterator[str]:
    """The network, the images, and the labels."""
    splits = ", ".join(f"{len(split)} {name}" for name, split in source.splits.items())
    what = "classes" if source.task.kind == "classification" else source.task.kind
    graph = settings.graph
    yield (
        f"{graph.name}, input {'x'.join(map(str, graph.input_shape))}, "
        f"{len(source.classes)} {what}; {splits} images; "
        f"augmentation {settings.recipe.augment}; "
        f"{device}, "
        + ("" if ranks.alone else f"{ranks.count} processes of ")
        + f"{torch.get_num_threads()} threads, {'bfloat16 autocast' if settings.bfloat16 else 'float32'}"
    )
    yield f"{what}: {', '.join(source.classes[:_NAMED])}" + (", ..." if len(source.classes) > _NAMED else "")


def dropped(used: int, given: int) -> Iterator[str]:
    """A note, if whole batches leave out many of the `given` images."""
    if used < _MOST_USED * given:
        yield f"note: an epoch uses {used} of {given} images; with a smaller --batch-size it uses more"
