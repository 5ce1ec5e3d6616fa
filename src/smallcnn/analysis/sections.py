"""What was found, as sections of a page, with the images it was found on."""

from collections.abc import Sequence

import numpy as np

from smallcnn import page, plots
from smallcnn.analysis.calibration import BINS
from smallcnn.analysis.findings import Findings
from smallcnn.analysis.samples import Sample
from smallcnn.analysis.sweep import Sweep
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.metrics import taken_for
from smallcnn.page import Section

_MISTAKEN, _BESIDE = 4, 3
"""Images of a confused pair: of the mistake, and of the class it was taken for. Together a line of the page."""


def of_findings(findings: Findings, preprocessing: Preprocessing) -> list[Section]:
    """All sections, in the order of a page; images are shown as `preprocessing` hands them to the network."""
    return [
        _classes(findings),
        _confused(findings, preprocessing),
        _samples(findings, preprocessing, "Wrong, and sure of it", "The surest first.", findings.mistakes),
        _samples(
            findings, preprocessing, "Least certain", "The lowest probability of an answer first.", findings.uncertain
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
        "Images of the class, images taken for it; precision: how many of those taken for it are of it; recall: "
        "how many of its own are found; F1: their harmonic mean."
    ) + (
        f" {unseen} classes have no image here; those of them that no image was taken for are left out."
        if unseen
        else ""
    )
    head = ["class", "pictures", "taken for it", "precision, %", "recall, %", "F1, %"]
    return Section("Class by class", f"<p>{page.text(note)}</p>{page.sortable_table(head, rows, 'find a class')}")


def _per_cent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.1f}"


def _confused(findings: Findings, preprocessing: Preprocessing) -> Section:
    title = "Most confused"
    if not findings.pairs:
        return Section(title, "<p>No image was taken for another class.</p>")
    labels, answers = findings.labels, findings.evaluation.answers
    said = taken_for(answers.logits, answers.labels)
    blocks = []
    for pair in findings.pairs:
        true, taken = labels[pair.true], labels[pair.taken]
        found = np.flatnonzero((answers.labels == pair.taken) & (said == pair.taken)).tolist()
        figures = [
            *(_figure(findings, preprocessing, place, False, f"{true}, taken for {taken}")
              for place in pair.places[:_MISTAKEN]),
            *(_figure(findings, preprocessing, place, True, taken) for place in found[:_BESIDE]),
        ]  # fmt: skip
        blocks.append(f"<h3>{page.text(f'{pair.count} of {true} taken for {taken}')}</h3>{page.grid(figures)}")
    note = "Framed green for comparison: images of the other class that were recognised."
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
    image = preprocessing.prepare(findings.evaluation.split.images[index])
    return page.figure(image, right, caption, findings.name(place))


def _calibration(findings: Findings) -> Section:
    found = findings.calibration
    note = (
        f"Expected calibration error, {BINS} bins: how far, on average, the probability of an answer is from how often "
        f"such answers are right. It is {found.before.error:.2%} here, the cross-entropy {found.before.loss:.4f}. "
    )
    if found.after:
        note += (
            f"Logits divided by the temperature {found.temperature:.3f} have the lowest cross-entropy on these "
            f"images. Fitted on one half and measured on the other, twice, that gives {found.after.error:.2%} and "
            f"{found.after.loss:.4f}. The order of the classes stays the same; `smallcnn analyze --calibrate --save` "
            "puts the temperature into the weights."
        )
    else:
        note += "No temperature can be fitted: too few images, all of them correct, or an untrained model."
    return Section("Calibration", f"<p>{page.text(note)}</p>{plots.svg(plots.reliability(found))}")


def of_sweep(sweep: Sweep) -> Section:
    """Accuracy by input size."""
    again = any(row.top1_reestimated is not None for row in sweep.rows)
    rows = [
        ["x".join(map(str, row.size)), f"{row.mult_adds / 1e6:,.1f} M", f"{row.top1:.2%}",
         *([f"{row.top1_reestimated:.2%}"] if row.top1_reestimated is not None else [])]
        for row in sweep.rows
    ]  # fmt: skip
    head = ["input", "Mult-Adds", "top-1", *(["top-1, batch norm re-estimated"] if again else [])]
    note = (
        f"The same weights and the same {sweep.images} images at every size; one standard error of a figure is about "
        f"{sweep.standard_error:.1%}, that of a difference less. {sweep.note}"
    )
    refused = "".join(f"<p>{page.text(reason)}</p>" for reason in dict.fromkeys(sweep.refused.values()))
    return Section(
        "Input size",
        f"<p>{page.text(note)}</p>{refused}{plots.svg(plots.resolutions(sweep))}{page.table(head, rows)}",
    )
