"""Findings as sections of a page, with their images."""

from collections.abc import Sequence

import numpy as np

from smallcnn.analysis.calibration import BINS
from smallcnn.analysis.findings import Findings
from smallcnn.analysis.samples import Sample
from smallcnn.analysis.sweep import Sweep
from smallcnn.image.fit import Preprocessing
from smallcnn.report import charts, page
from smallcnn.report.page import Section
from smallcnn.tasks.metrics import predicted

_CONFUSED, _CORRECT = 4, 3
"""Images shown of a confused pair: confused ones, and correct ones of the predicted class; together a line."""


def of_findings(findings: Findings, preprocessing: Preprocessing) -> list[Section]:
    """All sections in page order; images are shown as `preprocessing` prepares them for the network."""
    return [
        _classes(findings),
        _confused(findings, preprocessing),
        _samples(findings, preprocessing, "Most confident errors", "Highest probability first.", findings.mistakes),
        _samples(
            findings, preprocessing, "Least certain", "Lowest probability of the answer first.", findings.uncertain
        ),
        _calibration(findings),
    ]


def _classes(findings: Findings) -> Section:
    rows = [
        [score.label, str(score.support), str(score.named), _per_cent(score.precision), _per_cent(score.recall),
         _per_cent(score.f1)]
        for score in findings.classes
        if score.support or score.named
    ]  # fmt: skip
    unseen = sum(not score.support for score in findings.classes)
    note = (
        "Images of the class and images predicted as it. Precision: share of the images predicted as the class that "
        "belong to it. Recall: share of the class's images that are found. F1: their harmonic mean."
    ) + (f" {unseen} classes have no image here; those without predictions either are not listed." if unseen else "")
    head = ["class", "images", "predicted", "precision, %", "recall, %", "F1, %"]
    return Section("Classes", f"<p>{page.text(note)}</p>{page.sortable_table(head, rows, 'find a class')}")


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _confused(findings: Findings, preprocessing: Preprocessing) -> Section:
    title = "Most confused"
    if not findings.pairs:
        return Section(title, "<p>No image was confused with another class.</p>")
    labels, answers = findings.labels, findings.evaluation.answers
    said = predicted(answers.logits)
    blocks = []
    for pair in findings.pairs:
        true, taken = labels[pair.true], labels[pair.taken]
        found = np.flatnonzero((answers.labels == pair.taken) & (said == pair.taken)).tolist()
        figures = [
            *(_figure(findings, preprocessing, place, False, f"{true}, predicted as {taken}")
              for place in pair.places[:_CONFUSED]),
            *(_figure(findings, preprocessing, place, True, taken) for place in found[:_CORRECT]),
        ]  # fmt: skip
        blocks.append(f"<h3>{page.text(f'{pair.count} of {true} predicted as {taken}')}</h3>{page.grid(figures)}")
    note = "Green frames, for comparison: images of the other class that were predicted correctly."
    return Section(title, f"<p>{note}</p>{''.join(blocks)}")


def _samples(
    findings: Findings, preprocessing: Preprocessing, title: str, note: str, samples: Sequence[Sample]
) -> Section:
    if not samples:
        return Section(title, "<p>None.</p>")
    figures = []
    for one in samples:
        right = one.true == one.taken
        said = f"{findings.labels[one.taken]} {one.probability:.1%}"
        caption = said if right else f"{said}, is {findings.labels[one.true]}"
        figures.append(_figure(findings, preprocessing, one.place, right, caption))
    return Section(title, f"<p>{page.text(note)}</p>{page.grid(figures)}")


def _figure(findings: Findings, preprocessing: Preprocessing, place: int, right: bool, caption: str) -> str:
    index = findings.evaluation.answers.indices[place]
    image = preprocessing.prepare(findings.evaluation.split.images[index]).pixels
    return page.figure(image, right, caption, findings.name(place))


def _calibration(findings: Findings) -> Section:
    found = findings.calibration
    note = (
        f"The expected calibration error is {found.before.error:.2%}, over {BINS} bins: the mean distance between the "
        f"probability of an answer and the share of such answers that are right. The cross-entropy is "
        f"{found.before.loss:.4f}. "
    )
    if found.after:
        note += (
            f"Dividing the logits by the temperature {found.temperature:.3f} minimises the cross-entropy on these "
            f"images. Cross-validated over two halves, it gives an error of {found.after.error:.2%} and a "
            f"cross-entropy of {found.after.loss:.4f}. The order of the classes does not change. "
            "`smallcnn analyze --calibrate --save` writes the temperature into the weights."
        )
    else:
        note += "No temperature can be fitted: too few images, all of them correct, or an untrained model."
    return Section("Calibration", f"<p>{page.text(note)}</p>{charts.svg(charts.reliability(found))}")


def of_sweep(sweep: Sweep) -> Section:
    """Accuracy by input size."""
    again = any(row.top1_reestimated is not None for row in sweep.rows)
    rows = [
        ["x".join(map(str, row.size)), f"{row.mult_adds / 1e6:,.1f} M", f"{row.top1:.2%}",
         *([f"{row.top1_reestimated:.2%}" if row.top1_reestimated is not None else ""] if again else [])]
        for row in sweep.rows
    ]  # fmt: skip
    head = ["input size", "Mult-Adds", "top-1", *(["top-1, batch norm re-estimated"] if again else [])]
    note = (
        f"Every size uses the same weights and the same {sweep.images} images. The standard error of a figure is about "
        f"{sweep.standard_error:.1%}; that of a difference is smaller. {sweep.note}"
    )
    refused = "".join(f"<p>{page.text(reason)}</p>" for reason in dict.fromkeys(sweep.refused.values()))
    return Section(
        "Input size",
        f"<p>{page.text(note)}</p>{refused}{charts.svg(charts.resolutions(sweep))}{page.table(head, rows)}",
    )
