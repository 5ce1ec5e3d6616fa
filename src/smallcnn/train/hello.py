"""The lines at the start of a run: what is trained, on what, and how."""

from collections.abc import Iterator

import numpy as np
import torch

from smallcnn.data.duplicates import Duplicates
from smallcnn.data.sources import Source
from smallcnn.system.words import several
from smallcnn.train.feed import Feed
from smallcnn.train.ranks import Ranks
from smallcnn.train.settings import Settings

_NAMED = 10  # labels to name
_MOST_USED = 0.9  # share of the images in whole batches, below which a note says so
_RATED = 2048  # images to time the loader with, at most


def of_run(settings: Settings, source: Source, device: str, ranks: Ranks) -> Iterator[str]:
    """The network, the images, and the labels."""
    splits = ", ".join(f"{len(split)} {name}" for name, split in source.splits.items())
    what = {"classification": "classes", "detection": "classes of objects"}.get(source.task.kind, source.task.kind)
    graph = settings.graph
    yield (
        f"{graph.name}, input {'x'.join(map(str, graph.input_shape))}, "
        f"{len(source.classes)} {what}; {splits} images; "
        f"augmentation {settings.recipe.augment}; "
        f"{device}, "
        + ("" if ranks.alone else f"{ranks.count} processes of ")
        + several(torch.get_num_threads(), "thread")
    )
    yield f"{what}: {', '.join(source.classes[:_NAMED])}" + (", ..." if len(source.classes) > _NAMED else "")


def of_steps(settings: Settings, feed: Feed, batch_size: int, why: str, ranks: Ranks) -> Iterator[str]:
    """How many images an epoch uses, what computes them and `why`, how fast they load, and what the run starts from."""
    used, given = len(feed) // batch_size * batch_size, len(feed)
    if used < _MOST_USED * given:
        yield f"note: an epoch uses {used} of {given} images; with a smaller --batch-size it uses more"
    precision = "with bfloat16 autocast" if settings.bfloat16 else "in float32"
    yield f"computed by {settings.compute} {precision}: {why}"
    if ranks.first:
        rate = feed.rate(np.arange(min(given, _RATED)), batch_size)
        yield f"loading alone: {rate:,.0f} images/s" + ("" if ranks.alone else " per process")
    if start := settings.start:
        yield f"starts from trained weights; its last layer is {'new' if start.new_last_layer else 'kept'}"
    if settings.grids:
        yield "quantization-aware: batch norm folded, weights and activations rounded; validated as its int8 file"


def of_duplicates(found: Duplicates | None) -> Iterator[str]:
    """A note on validation images that look like training images, if there are any."""
    if found and (line := found.line()):
        yield f"note: {line}"
