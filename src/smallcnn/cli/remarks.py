"""Remarks on an evaluation that a command prints on stderr."""

from smallcnn.cli.show import remark
from smallcnn.data import duplicates
from smallcnn.data.duplicates import Duplicates
from smallcnn.evaluate import Evaluation


def remarks(evaluation: Evaluation, workers: int | None) -> Duplicates | None:
    """Prints doubts about the split, notes on the data and skipped images; returns near copies of training images."""
    if evaluation.doubt:
        remark(f"note: {evaluation.doubt}")
    for note in evaluation.source.notes:
        remark(f"note: {note}")
    for problem in dict.fromkeys(evaluation.skipped.values()):
        remark(f"skipped: {problem}")
    alike = None
    if evaluation.part in ("val", "test") and (learned := evaluation.source.splits.get("train")):
        alike = duplicates.between(learned, evaluation.split, workers=workers)
    if alike and (line := alike.line()):
        remark(f"note: {line}")
    return alike
