"""Remarks on an evaluation that a command prints on stderr."""

from smallcnn.cli.show import remark
from smallcnn.data import duplicates
from smallcnn.data.duplicates import Duplicates
from smallcnn.evaluate import Evaluation


def remarks(evaluation: Evaluation) -> None:
    """Prints doubts about the split, notes on the data and skipped images."""
    if evaluation.doubt:
        remark(f"note: {evaluation.doubt}")
    for note in evaluation.source.notes:
        remark(f"note: {note}")
    for problem in dict.fromkeys(evaluation.skipped.values()):
        remark(f"skipped: {problem}")


def near_copies(evaluation: Evaluation, workers: int | None) -> Duplicates | None:
    """The images that look like training images, and a remark on them."""
    alike = None
    if evaluation.part in ("val", "test") and (learned := evaluation.source.splits.get("train")):
        alike = duplicates.between(learned, evaluation.split, workers=workers)
    if alike and (line := alike.line()):
        remark(f"note: {line}")
    return alike
