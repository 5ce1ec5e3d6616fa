"""Findings about a detector as sections of a page, with images and their boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn.analysis.calibration import BINS
from smallcnn.analysis.objects.errors import KINDS
from smallcnn.analysis.objects.findings import ObjectFindings
from smallcnn.evaluate import Evaluation
from smallcnn.image.decode import decode
from smallcnn.image.draw import TRUE, WRONG, colour, draw
from smallcnn.report import charts, page
from smallcnn.report.network import about_images
from smallcnn.report.page import Section
from smallcnn.runtime import Net
from smallcnn.tasks.metrics import title
from smallcnn.tasks.objects import CLASS, NO_BOX

_SIDE = 240
"""Pixels of the shorter side of an image on the page."""
_AROUND = 1.0
"""What is shown around the boxes, in their sizes, on each side."""
_LEAST_SHOWN = 96
"""Least side of what is shown, in pixels of the image."""

_MEANING = {
    "class": ("Predicted as another class", "well placed on an object of another class (IoU at least 0.5)"),
    "place": ("Not well placed", "on an object of the class, but with an IoU of 0.1 to 0.5"),
    "both": ("Another class and not well placed", "on an object of another class, with an IoU of 0.1 to 0.5"),
    "duplicate": ("Duplicates", "on an object that a detection with a higher score has found"),
    "background": ("False alarms", "on no labelled object (IoU below 0.1)"),
    "missed": ("Missed objects", "not found, and no detection is on them with another class or place"),
}


def accuracy(evaluation: Evaluation, net: Net, data: str) -> Section:
    """COCO's figures, and precision by recall."""
    note = (
        f"{evaluation.images} images of {data} ({evaluation.part}), {evaluation.figures.objects.sum()} objects; "
        f"{Path(net.where).name} in {net.engine}."
    )
    rows = [[title(name), "-" if np.isnan(score) else f"{score:.2%}"] for name, score in evaluation.scores.items()]
    curves = charts.svg(charts.precision_recall(evaluation.figures, net.labels))
    table = page.table(["COCO's figures", ""], rows)
    return Section("Accuracy", f"<p>{page.text(note)}</p>{about_images(evaluation)}{curves}{table}")


def of_findings(findings: ObjectFindings) -> list[Section]:
    """All other sections in page order."""
    return [
        _classes(findings), _errors(findings), *(_gallery(findings, kind) for kind in KINDS), _calibration(findings)
    ]  # fmt: skip


def with_objects(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A network's input (H, W, C) with the objects of its target (most, 7) drawn: sides in fractions of the input."""
    rows = target[target[:, CLASS] != NO_BOX]
    height, width, _ = image.shape
    colours = [colour(number) for number in rows[:, CLASS].astype(int).tolist()]
    plain = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(draw(plain, rows[:, :4] * [width, height, width, height], [""] * len(rows), colours))


def _classes(findings: ObjectFindings) -> Section:
    figures, best = findings.evaluation.figures, {one.label: one for one in findings.classes}
    rows = []
    for number in np.flatnonzero(figures.objects).tolist():
        one = best[findings.evaluation.task.labels[number]]
        shares = [values[number] for values in figures.by_class.values()]
        rows.append([
            one.label, str(one.objects), str(figures.detections[number]), *(_per_cent(share) for share in shares),
            "-" if one.score is None else f"{one.score:.3f}",
            *(_per_cent(share) for share in (one.precision, one.recall, one.f1)),
        ])  # fmt: skip
    note = (
        "AP: average precision over IoU thresholds of 0.5 to 0.95; AP50: at 0.5; AR 100: average recall. The threshold "
        "is the score with the highest F1 at IoU 0.5; precision, recall and F1 are of the detections above it."
    )
    head = ["class", "objects", "detections", "AP, %", "AP50, %", "AR 100, %", "threshold", "precision, %", "recall, %",
            "F1, %"]  # fmt: skip
    return Section("Classes", f"<p>{page.text(note)}</p>{page.sortable_table(head, rows, 'find a class')}")


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _errors(findings: ObjectFindings) -> Section:
    counts, every = findings.errors.counts(findings.threshold), findings.errors.counts()
    rows = [
        [_MEANING[kind][0], _MEANING[kind][1], str(counts[kind]), str(every[kind]),
         f"{100 * findings.errors.costs[kind]:.1f}"]
        for kind in KINDS
    ]  # fmt: skip
    note = (
        f"Kinds of errors (TIDE, arXiv 2008.08115). The first count is of detections with a score above "
        f"{findings.threshold:.3g}, the second of all. The cost is the rise of AP50, in points, if errors of this kind "
        "alone were put right."
    )
    table = page.table(["error", "meaning", "count", "of all detections", "AP50 lost"], rows)
    labels = findings.evaluation.task.labels
    pairs = [[labels[one.true], labels[one.taken], str(one.count)] for one in findings.confused]
    confused = f"<h3>Most confused</h3>{page.table(['class', 'predicted as', 'objects'], pairs)}" if pairs else ""
    return Section("Errors", f"<p>{page.text(note)}</p>{table}{confused}")


def _gallery(findings: ObjectFindings, kind: str) -> Section:
    name, meaning = _MEANING[kind]
    samples = findings.samples(kind).tolist()
    if not samples:
        return Section(name, "<p>None.</p>")
    figures = [(_missed if kind == "missed" else _wrong)(findings, place) for place in samples]
    if kind == "missed":
        note = f"Objects {meaning}. Largest first. Labelled objects are blue."
    else:
        note = f"Detections {meaning}. Highest score first. The detection is red, labelled objects are blue."
    return Section(name, f"<p>{page.text(note)}</p>{page.grid(figures, large=True)}")


def _wrong(findings: ObjectFindings, place: int) -> str:
    """The figure of a detection."""
    errors, labels = findings.errors, findings.evaluation.task.labels
    said, about = errors.detections, int(errors.about[place])
    caption = f"{labels[said.classes[place]]} {said.scores[place]:.1%}"
    if about >= 0 and errors.objects.classes[about] != said.classes[place]:
        caption += f", is {labels[errors.objects.classes[about]]}"
    shown = [said.boxes[place], *([errors.objects.boxes[about]] if about >= 0 else [])]
    return _figure(findings, int(said.images[place]), shown, said.boxes[place : place + 1], caption)


def _missed(findings: ObjectFindings, place: int) -> str:
    """The figure of an object."""
    objects = findings.errors.objects
    caption = findings.evaluation.task.labels[objects.classes[place]]
    return _figure(findings, int(objects.images[place]), [objects.boxes[place]], np.zeros((0, 4)), caption)


def _figure(findings: ObjectFindings, image: int, shown: Sequence[np.ndarray], wrong: np.ndarray, caption: str) -> str:
    """The part of an image around the boxes `shown`, with the `wrong` detections and all labelled objects."""
    evaluation, objects = findings.evaluation, findings.errors.objects
    decoded = decode(evaluation.split.images[evaluation.answers.indices[image]], 3)
    left, top, right, bottom = _window(np.array(shown), decoded.size)
    part = decoded.image.crop((left, top, right, bottom))
    scale = min(_SIDE / min(part.size), 2.0)
    part = part.resize((max(round(part.width * scale), 1), max(round(part.height * scale), 1)))
    boxes = np.concatenate([wrong, objects.boxes[objects.images == image]])
    inside = (boxes - [left, top, left, top]) * scale
    near = np.flatnonzero((inside[:, 2:] > 0).all(1) & (inside[:, :2] < part.size).all(1)).tolist()
    colours = [WRONG if place < len(wrong) else TRUE for place in near]
    drawn = draw(part, inside[near], [""] * len(near), colours, line=2)
    return page.figure(np.asarray(drawn), None, caption, findings.name(image), largest=_SIDE)


def _window(boxes: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is shown around boxes of an image (width, height)."""
    first, last = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    around = np.maximum((last - first) * _AROUND, (_LEAST_SHOWN - (last - first)) / 2)
    left, top = np.clip(np.floor(first - around), 0, np.array(size) - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(last + around), [left + 1, top + 1], size).astype(int).tolist()
    return left, top, right, bottom


def _calibration(findings: ObjectFindings) -> Section:
    note = (
        f"The share of detections that are right (IoU at least 0.5) by their score, in {BINS} bins. The mean distance "
        f"between the two is {findings.reliability.error:.2%}. Below the line, scores promise too much."
    )
    figure = charts.svg(charts.reliability_of_scores(findings.reliability))
    return Section("Calibration of the scores", f"<p>{page.text(note)}</p>{figure}")
