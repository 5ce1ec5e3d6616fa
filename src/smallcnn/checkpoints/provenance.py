"""What every imported model has: the labels asked for, where it came from, and no background class."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallcnn import zoo
from smallcnn.errors import FileError
from smallcnn.foreign.labels import usual_labels
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite
from smallcnn.ir.types import Grid
from smallcnn.model.facts import Facts
from smallcnn.model.model import Model
from smallcnn.tasks.classification import Classification, classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.labels import checked_labels
from smallcnn.transform.adapt import classifier, with_classes


def labels_of(classes: int, labels: Sequence[str] | None, usual: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The given labels, else the usual ones: by default those of ImageNet, or numbers."""
    if labels is not None:
        if len(set(labels)) != len(labels):
            raise FileError("two labels are the same")
        if len(labels) != classes:
            kept = "; --keep-background keeps the first" if len(labels) == classes + 1 else ""
            raise FileError(f"{len(labels)} labels for {classes} classes{kept}")
        return checked_labels(list(labels))
    return usual_labels(classes) if usual is None else usual


def with_labels(made: Model, labels: tuple[str, ...]) -> Classification | Detection:
    """The task with other labels."""
    task = made.task if isinstance(made.task, Detection) else classification(made.task, "import")
    return replace(task, labels=labels)


def without_background(graph: Graph, weights: dict[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Without the first of TensorFlow's 1,001 classes."""
    last = classifier(graph)
    if isinstance(last.op, ops.Conv | ops.Dense) and (grid := last.op.grid):  # whole weights stay as they are
        per_output = len(grid.scale) > 1
        fewer_grid = Grid(grid.scale[1:], grid.zero[1:]) if per_output else grid
        fewer = rewrite(graph, ops={last.name: replace(last.op, out=last.op.out - 1, grid=fewer_grid)})
    else:
        fewer = with_classes(graph, graph.output_shape[0] - 1)
    return fewer, {
        name: value if value.shape == fewer.weights[name].shape else value[1:] for name, value in weights.items()
    }


def imported(
    paths: Sequence[Path], model: zoo.Configuration, origin: str, fresh: list[str], notes: Sequence[str] = ()
) -> Facts:
    """The facts of weights of `model`; `fresh` are the layers that the files lack."""
    files = [digest(path) for path in paths]
    return Facts(imported={"model": str(model), "origin": origin, "files": files, "fresh": fresh, "notes": list(notes)})


def digest(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
