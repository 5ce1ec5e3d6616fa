"""HTML reports about a model file on some images."""

from collections.abc import Sequence
from pathlib import Path

from smallcnn.analysis.analyze import Analysis, Step
from smallcnn.analysis.objects.findings import ObjectFindings
from smallcnn.cost.profile import profile
from smallcnn.report import analysis as sections
from smallcnn.report import objects, page
from smallcnn.report.network import accuracy, cost, details, facts, plain_name, size
from smallcnn.report.page import Section, write
from smallcnn.runtime import Net


def of_analysis(path: Path, analysis: Analysis, data: str) -> None:
    """Writes a page about a model file on images of `data`."""
    net, findings = analysis.net, analysis.findings
    evaluation, counted = findings.evaluation, analysis.model and profile(analysis.model.graph)
    write(
        path,
        f"{plain_name(net.name)} on {Path(data).name}",
        [
            (f"{evaluation.metrics.top1:.1%}", f"top-1 on {evaluation.metrics.images:,} images"),
            (f"{evaluation.metrics.top5:.1%}", "top-5"),
            (f"{findings.calibration.before.error:.1%}", "calibration error"),
            *(size(counted) if counted else []),
        ],
        [
            accuracy(evaluation, net, Path(data).name),
            *([_steps(analysis.steps)] if len(analysis.steps) > 1 else []),
            *sections.of_findings(findings, net.preprocessing),
            *([sections.of_sweep(analysis.sweep)] if analysis.sweep else []),
            *([cost(counted)] if counted else []),
            facts(net, []),
        ],
        details(net),
    )


def _steps(steps: Sequence[Step]) -> Section:
    rows = [[step.what, "x".join(map(str, step.size)), f"{step.top1:.2%}", f"{step.loss:.4f}"] for step in steps]
    note = "Each change applies to the network of the line above. The rest of the page is about the last one."
    return Section(
        "Changes without training", f"<p>{note}</p>{page.table(['network', 'input size', 'top-1', 'loss'], rows)}"
    )


def of_objects(path: Path, net: Net, findings: ObjectFindings, data: str) -> None:
    """Writes a page about a detector on images of `data`."""
    scores, best = findings.evaluation.scores, findings.best
    write(
        path,
        f"{plain_name(net.name)} on {Path(data).name}",
        [
            (f"{scores['map']:.1%}", f"AP on {findings.evaluation.images:,} images"),
            (f"{scores['map50']:.1%}", "AP50"),
            ("-" if best.f1 is None else f"{best.f1:.1%}", "F1 at the best threshold"),
            ("-" if best.score is None else f"{best.score:.2f}", "best threshold"),
        ],
        [objects.accuracy(findings.evaluation, net, Path(data).name), *objects.of_findings(findings), facts(net, [])],
        details(net),
    )
