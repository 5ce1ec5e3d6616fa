"""Metadata of a converted file (.onnx, compiled): text by name.

smallcnn.format          version of this layout
smallcnn.model           the network's name
smallcnn.mult_adds       Mult-Adds, for tools that report speed
smallcnn.layers          JSON object: Mult-Adds by node
smallcnn.labels          JSON list, one name per class
smallcnn.preprocessing   JSON object, see `Preprocessing`
smallcnn.facts           JSON object: origin of the weights
smallcnn.ending          function from logits to answers, see `tasks.ending`; "softmax" if absent
smallcnn.output          "logits" or "probabilities"
smallcnn.probe           JSON list: exact answer to `probe.probe_image`, to verify an engine
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smallcnn.data.labels import checked_labels
from smallcnn.errors import FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.tasks.ending import Ending, check_ending

if TYPE_CHECKING:
    from smallcnn.model.model import Artifact

FORMAT = "1"


@dataclass(frozen=True)
class Description:
    """Parsed metadata. `layers` is Mult-Adds by node, `answer` the float64 answer to the probe image."""

    name: str
    mult_adds: int
    layers: dict[str, int]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    facts: dict[str, Any]
    ending: Ending
    outputs_probabilities: bool
    answer: np.ndarray


def describe(artifact: "Artifact", output: str, answer: np.ndarray | None = None) -> dict[str, str]:
    """The entries of a file that ends in `output`; `answer` is its answer to the probe image, if known."""
    from smallcnn.cost.profile import profile

    cost = profile(artifact.graph)
    entries = {
        "smallcnn.format": FORMAT,
        "smallcnn.model": artifact.graph.name,
        "smallcnn.mult_adds": str(cost.mult_adds),
        "smallcnn.layers": json.dumps({layer.name: layer.mult_adds for layer in cost.layers if layer.mult_adds}),
        "smallcnn.labels": json.dumps(artifact.labels),
        "smallcnn.preprocessing": artifact.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(artifact.facts),
        "smallcnn.output": output,
    }
    if artifact.ending != "softmax":
        entries["smallcnn.ending"] = artifact.ending
    if answer is not None:
        entries["smallcnn.probe"] = json.dumps([float(f"{value:.9g}") for value in answer])
    return entries


def parse(entries: Mapping[str, str]) -> Description:
    """The inverse of `describe`. Raises FileError if an entry is missing or damaged, or the format is another."""
    try:
        if entries["smallcnn.format"] != FORMAT:
            raise FileError(f"written in format {entries['smallcnn.format']!r}, this smallcnn reads {FORMAT!r}")
        labels, facts = (json.loads(entries[f"smallcnn.{key}"]) for key in ("labels", "facts"))
        answer = np.array(json.loads(entries["smallcnn.probe"]), np.float64)
        if not isinstance(facts, dict):
            raise FileError(f"its facts are {type(facts).__name__}, not a JSON object")
        if not np.isfinite(answer).all():
            raise FileError("its answer to the probe image is not a finite number")
        if answer.shape != (len(labels),):
            raise FileError(f"{len(labels)} labels for {answer.size} outputs")
        return Description(
            name=entries["smallcnn.model"],
            mult_adds=int(entries["smallcnn.mult_adds"]),
            layers=json.loads(entries.get("smallcnn.layers", "{}")),  # older files lack it
            labels=checked_labels(labels),
            preprocessing=Preprocessing.from_json(entries["smallcnn.preprocessing"]),
            facts=facts,
            ending=check_ending(entries.get("smallcnn.ending", "softmax")),
            outputs_probabilities=entries["smallcnn.output"] == "probabilities",
            answer=answer,
        )
    except KeyError as error:
        raise FileError(f"not smallcnn's: its metadata has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:  # FileError is a ValueError too
        raise FileError(str(error)) from error
