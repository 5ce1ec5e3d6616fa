"""The probe image: a reproducible image, and a network's answer to it, to verify a model file on any machine.

An exported file stores the answer of the plain definition (`reference`) to this image. Any engine that opens the file
can be checked against it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.errors import AnswerError
from smallcnn.image.fit import Preprocessing

if TYPE_CHECKING:
    from smallcnn.ir.graph import Graph

TOLERANCE = 1e-4
"""Largest accepted relative error of a float32 engine; rounding gives about 1e-6, a wrong layer far more."""


def probe_image(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (1, H, W, C) with byte i = bits 13 to 20 of i * 2654435761: noise in every channel, reproducible."""
    index = np.arange(np.prod(shape), dtype=np.uint64)
    return ((index * 2654435761 >> 13) & 255).astype(np.uint8).reshape(1, *shape)


def probe_answer(graph: "Graph", weights: Mapping[str, np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """Logits of the plain definition for the probe image: float64 (classes,). Raises AnswerError if not finite."""
    from smallcnn.reference import floating as reference  # a compiled file runs without it

    with np.errstate(all="ignore"):
        answer = reference.run(graph, weights, preprocessing.normalise(probe_image(graph.input_shape)))[0]
    if not np.isfinite(answer).all():
        raise AnswerError(f"{graph.name}: its answer to the probe image is not a finite number; its weights are broken")
    return answer


def agrees(error: float) -> bool:
    """Whether a relative error is within `TOLERANCE`; NaN never is."""
    return error <= TOLERANCE


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest wanted value; infinite if the shapes differ or a value is not finite."""
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return float("inf")
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))
