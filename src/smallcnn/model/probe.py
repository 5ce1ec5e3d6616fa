"""The probe image: a reproducible image, and a network's answer to it, to verify a model file on any machine.

An exported file stores the answer of the plain definition (`reference`) to this image. Any engine that opens the file
can be checked against it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.errors import AnswerError
from smallcnn.image.fit import Preprocessing
from smallcnn.model import sightings

if TYPE_CHECKING:
    from smallcnn.ir.graph import Graph

TOLERANCE = 1e-4
"""Largest accepted relative error of a float32 engine; rounding gives about 1e-6, a wrong layer far more."""

INTEGER_TOLERANCE = 0.15
"""The same for a network that computes with whole numbers.

Engines multiply and add float32 in different orders before they round to a byte. A number halfway between two bytes may
fall on either, and later layers carry the step on. Public networks are off by up to 0.09 in one engine or another, a
MobileNetV2 trained for bytes was by 0.12; an engine whose sums overflow is off by 0.3 to 1.3. Compiled files without
float layers are held to `TOLERANCE`: they give the definition's bits. A network may be more sensitive than that: see
`rounding`.
"""

_NEARBY = 8
"""Images that `rounding` looks at."""


def probe_image(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (1, H, W, C) with byte i = bits 13 to 20 of i * 2654435761: noise in every channel, reproducible."""
    index = np.arange(np.prod(shape), dtype=np.uint64)
    return ((index * 2654435761 >> 13) & 255).astype(np.uint8).reshape(1, *shape)


def probe_answer(
    graph: "Graph", weights: Mapping[str, np.ndarray], preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """Outputs of the plain definition for the probe image by name, without the batch: float64, or whole numbers.

    Of a detector also what `sightings` adds. Raises AnswerError if one is not finite.
    """
    from smallcnn.reference import floating, integer  # a compiled file runs without them

    definition = integer if graph.integer else floating
    with np.errstate(all="ignore"):
        images = preprocessing.normalise(probe_image(graph.input_shape))
        end = sightings.end_of(graph)
        answers = definition.run(sightings.with_inputs(graph) if end else graph, weights, images)
    answer = {name: value[0] for name, value in answers.items()}
    read = [answer.pop(sightings.READ + name) for name in end.inputs] if end else []
    if not all(np.isfinite(value).all() for value in answer.values()):
        raise AnswerError(f"{graph.name}: its answer to the probe image is not a finite number; its weights are broken")
    return sightings.told(graph, answer, read, tolerance(integer=graph.integer)) if end else answer


def tolerance(*, integer: bool) -> float:
    """The largest accepted relative error of a network; `integer` as `Graph.integer`."""
    return INTEGER_TOLERANCE if integer else TOLERANCE


def relative_error(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The largest error of any output, see `output_error`; infinite if the outputs have other names.

    Objects of a detector are compared as `sightings.detection_error` says.
    """
    if sightings.POSSIBLE in wanted:
        return sightings.detection_error(got, wanted)
    if got.keys() != wanted.keys():
        return float("inf")
    return max(output_error(got[name], wanted[name]) for name in wanted)


def rounding(run: Callable[[np.ndarray], Mapping[str, np.ndarray]], shape: tuple[int, int, int]) -> float:
    """The relative error that rounding may cause in a network of bytes, by its answers to images near the probe image.

    Each differs from it in about a thousandth of its bytes, by one. Rounding happens in every layer, so half as much
    again is allowed. A MobileNetV2 that was pruned and not trained since was off by 0.16 in ONNX Runtime, and by as
    much after one byte of the image had changed by one.
    """
    image, random = probe_image(shape), np.random.default_rng(0)
    answer = run(image)
    nearby = (image ^ (random.random(image.shape) < 1e-3).astype(np.uint8) for _ in range(_NEARBY))
    return 1.5 * max(relative_error(run(other), answer) for other in nearby)


def output_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest wanted value; infinite if the shapes differ or a value is not finite.

    Engines take denormal numbers for zero, so a difference as small as those is always within `TOLERANCE`.

    Whole numbers must be of the same type. The real number before one may be rounded either way when it lies between
    two steps: each step off counts a tenth, on average over the numbers, and a single one nothing. A number that is
    several steps off counts a thousandth for each, so only `INTEGER_TOLERANCE` allows it.
    """
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return float("inf")
    if np.issubdtype(wanted.dtype, np.integer):
        if got.dtype != wanted.dtype:
            return float("inf")
        off = np.abs(got.astype(np.int64) - wanted.astype(np.int64))
        most, total = int(off.max(initial=0)), int(off.sum())
        return 0.0 if total <= 1 else max(total / (10 * wanted.size), most / 1000 if most > 1 else 0.0)
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny / TOLERANCE))
