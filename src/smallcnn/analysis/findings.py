"""The findings of one pass over labelled images."""

from dataclasses import asdict, dataclass
from typing import Any

from smallcnn.analysis.calibration import BINS, Calibration, calibrate
from smallcnn.analysis.classes import ClassScore, Pair, class_scores, confused_pairs
from smallcnn.analysis.samples import Sample, least_certain, surest_mistakes
from smallcnn.analysis.sweep import Sweep
from smallcnn.evaluate import Evaluation
from smallcnn.tasks.ending import Ending

_PAIRS, _SAMPLES = 10, 24


@dataclass(frozen=True)
class Findings:
    """Findings on the images of `evaluation`: class scores, the most confused pairs, single images, calibration."""

    evaluation: Evaluation
    labels: tuple[str, ...]
    classes: list[ClassScore]
    pairs: list[Pair]
    mistakes: list[Sample]
    uncertain: list[Sample]
    calibration: Calibration

    def name(self, place: int) -> str:
        """File name of the image at index `place` of the answers."""
        return self.evaluation.split.names[self.evaluation.answers.indices[place]]


def examine(evaluation: Evaluation, labels: tuple[str, ...], ending: Ending = "softmax") -> Findings:
    """The findings of an evaluation; `labels` and `ending` are the network's."""
    logits, true = evaluation.answers.logits, evaluation.answers.labels
    confusion = evaluation.metrics.confusion
    return Findings(
        evaluation=evaluation,
        labels=labels,
        classes=class_scores(confusion, labels),
        pairs=confused_pairs(confusion, logits, true, _PAIRS),
        mistakes=surest_mistakes(logits, true, _SAMPLES, ending),
        uncertain=least_certain(logits, true, _SAMPLES, ending),
        calibration=calibrate(logits, true, ending),
    )


def as_dict(findings: Findings, sweep: Sweep | None) -> dict[str, Any]:
    """The findings for JSON: class and file names in place of numbers, None where a value is undefined."""
    labels, calibration = findings.labels, findings.calibration
    after = calibration.after

    def sample(one: Sample) -> dict[str, Any]:
        return {
            "picture": findings.name(one.place), "true": labels[one.true], "taken_for": labels[one.taken],
            "probability": one.probability,
        }  # fmt: skip

    return {
        "classes": [asdict(score) for score in findings.classes],
        "confused": [
            {"true": labels[pair.true], "taken_for": labels[pair.taken], "count": pair.count,
             "pictures": [findings.name(place) for place in pair.places]}
            for pair in findings.pairs
        ],
        "surest_mistakes": [sample(one) for one in findings.mistakes],
        "least_certain": [sample(one) for one in findings.uncertain],
        "calibration": {
            "bins": BINS, "error": calibration.before.error, "loss": calibration.before.loss,
            "temperature": calibration.temperature, "scaled_error": after and after.error,
            "scaled_loss": after and after.loss,
        },
        "sweep": sweep and {
            "images": sweep.images, "note": sweep.note,
            "sizes": [{**asdict(row), "size": list(row.size)} for row in sweep.rows],
            "refused": [{"size": list(size), "reason": reason} for size, reason in sweep.refused.items()],
        },
    }  # fmt: skip
