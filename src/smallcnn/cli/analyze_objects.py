"""`smallcnn analyze` of a detector."""

from dataclasses import replace
from pathlib import Path

from smallcnn.analysis.objects.errors import KINDS
from smallcnn.analysis.objects.findings import ObjectFindings, as_dict, examine
from smallcnn.cli.remarks import near_copies, remarks
from smallcnn.cli.show import print_json, progress, remark, say, table
from smallcnn.evaluate import evaluate
from smallcnn.runtime import Net
from smallcnn.tasks.metrics import title

_SHOWN = 20


def run(
    net: Net,
    data: str,
    *,
    root: Path | None,
    part: str | None,
    crop: float | None,
    threshold: float | None,
    out: Path | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Evaluates the detector, writes the page `out` and prints the findings."""
    if crop:
        net = replace(net, preprocessing=replace(net.preprocessing, crop=crop))
    with progress("analyzing") as bar:
        evaluation = evaluate(net, data, root=root, part=part, workers=workers, report=bar)
    remarks(evaluation)
    alike = near_copies(evaluation, workers)
    findings = examine(evaluation, threshold)
    if out:
        from smallcnn.report import file as report

        report.of_objects(out, net, findings, data)
        remark(f"report: {out}")
    if json_:
        print_json({
            "file": net.where, "engine": net.engine, "data": data, "split": evaluation.part, **evaluation.scores,
            "images": evaluation.images, "skipped": list(evaluation.skipped),
            "left_out": evaluation.source.left_out.as_dict(), "near_duplicates": alike and alike.as_dict(),
            **as_dict(findings),
        })  # fmt: skip
    else:
        _show(net, data, findings)


def _show(net: Net, data: str, findings: ObjectFindings) -> None:
    evaluation, best = findings.evaluation, findings.best
    say(f"{net.where}, {net.engine}, {data} ({evaluation.part}): {evaluation.images} images, {best.objects} objects")
    say("  " + "   ".join(f"{title(name)} {evaluation.scores[name]:.2%}" for name in ("map", "map50", "map75")))
    say(f"  calibration error of the scores {findings.reliability.error:.2%}")
    if best.score is None:
        say("  no object is found")
    else:
        say(
            f"  best threshold {best.score:.3f}: precision {best.precision:.1%}, recall {best.recall:.1%}, "
            f"F1 {best.f1:.1%}"
        )
    counts, every = findings.errors.counts(findings.threshold), findings.errors.counts()
    rows = [[kind, str(counts[kind]), str(every[kind]), f"{findings.errors.costs[kind]:.1%}"] for kind in KINDS]
    table(["error", f"above a score of {findings.threshold:.3g}", "of all", "AP50 lost"], rows)
    labels = evaluation.task.labels
    for one in findings.confused[:5]:
        say(f"  {one.count} of {labels[one.true]} predicted as {labels[one.taken]}")
    worst = sorted(findings.classes, key=lambda one: one.f1 or 0)[:_SHOWN]
    which = f"{_SHOWN} worst of {len(findings.classes)} classes" if len(findings.classes) > _SHOWN else "class"
    cells = [
        [one.label, str(one.objects), "-" if one.score is None else f"{one.score:.3f}",
         *("-" if share is None else f"{share:.1%}" for share in (one.precision, one.recall, one.f1))]
        for one in worst
    ]  # fmt: skip
    table([which, "objects", "threshold", "precision", "recall", "F1"], cells)
