"""`smallcnn analyze`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli.options import as_json, crop, engine, part, root, threads, workers
from smallcnn.cli.show import print_json, progress, remark, say, table, warn_untrained
from smallcnn.errors import SmallcnnError, require

if TYPE_CHECKING:
    from smallcnn.analysis.analyze import Analysis
    from smallcnn.analysis.findings import Findings

_SHOWN = 10


@click.command("analyze")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="SOURCE", help="labelled images: folder, .npz or named set")
@root
@part
@crop
@click.option("--resolution", type=click.IntRange(1), help="take the network to this input size first")
@click.option(
    "--reestimate",
    is_flag=True,
    help="recompute batch norm's statistics from the training split, or the evaluated images if the set has none",
)
@click.option("--calibrate", is_flag=True, help="divide the logits by the temperature that fits these images")
@click.option("--save", "saved", type=click.Path(path_type=Path), help="write the network so changed (.safetensors)")
@click.option(
    "--sweep", "sweep_images", type=click.IntRange(0),
    help="images at each of six input sizes; 0 for none  [default: what takes seconds a size]",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="write it all with images as one .html page")
@engine
@threads
@workers
@as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    part: str | None,
    crop: float | None,
    resolution: int | None,
    reestimate: bool,
    calibrate: bool,
    saved: Path | None,
    sweep_images: int | None,
    out: Path | None,
    engine: str | None,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """What FILE gets wrong on SOURCE, how far its probabilities can be believed, and its accuracy at other input sizes.

    --resolution, --reestimate and --calibrate change the network without training; the accuracy of each step is shown,
    and --save keeps the result.
    """
    from smallcnn import artifact
    from smallcnn.analysis.analyze import analyze
    from smallcnn.analysis.findings import as_dict
    from smallcnn.data import duplicates

    _check(saved, out, changed=bool(resolution or reestimate or calibrate))
    with progress("analyzing") as bar:
        found = analyze(
            file, data, root=root, part=part, crop=crop, resolution=resolution, reestimate=reestimate,
            calibrate=calibrate, sweep_images=sweep_images, engine=engine, threads=threads, workers=workers,
            report=lambda _what, done, total: bar(done, total),
        )  # fmt: skip
    evaluation = found.findings.evaluation
    warn_untrained(found.net.facts)
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
    if found.no_sweep:
        remark(f"no other input sizes: {found.no_sweep}")
    if saved and found.artifact:
        artifact.save(found.artifact, saved)
        remark(f"saved: {saved}")
    if out:
        from smallcnn import report

        report.of_analysis(out, found, data)
        remark(f"report: {out}")
    if json_:
        metrics = evaluation.metrics
        print_json({
            "file": str(file), "engine": found.net.engine, "data": data, "part": evaluation.part, "top1": metrics.top1,
            "top5": metrics.top5, "loss": metrics.loss, "images": metrics.images, "skipped": list(evaluation.skipped),
            "left_out": evaluation.source.left_out.as_dict(), "near_duplicates": alike and alike.as_dict(),
            "steps": [asdict(step) for step in found.steps], **as_dict(found.findings, found.sweep),
        })  # fmt: skip
    else:
        _show(file, data, found)


def _check(saved: Path | None, out: Path | None, changed: bool) -> None:
    """Raises now what would be raised after the work."""
    from smallcnn.files import check_writable

    if saved and not changed:
        raise SmallcnnError("--save needs a change to save: --resolution, --reestimate or --calibrate")
    if saved and saved.suffix.lower() != ".safetensors":
        raise SmallcnnError(f"{saved}: --save writes a model file, whose name ends in .safetensors")
    if out:
        require("a page with plots", "train", "matplotlib")
    for path in filter(None, (saved, out)):
        check_writable(path)


def _show(file: Path, data: str, found: "Analysis") -> None:
    findings = found.findings
    metrics, calibration = findings.evaluation.metrics, findings.calibration
    say(f"{file}, {found.net.engine}, {data} ({findings.evaluation.part}): {metrics.images} images")
    for step in found.steps:
        size = "x".join(map(str, step.size))
        say(f"  top-1 {step.top1:.2%}   loss {step.loss:.4f}   {size}, {step.what}")
    line = f"  calibration error {calibration.before.error:.2%}"
    if calibration.after:
        line += f"; {calibration.after.error:.2%} (loss {calibration.after.loss:.4f}) with temperature "
        line += f"{calibration.temperature:.3f}, cross-validated"
    say(line)
    for pair in findings.pairs[:5]:
        say(f"  {pair.count} of {findings.labels[pair.true]} taken for {findings.labels[pair.taken]}")
    _show_classes(findings)
    if found.sweep:
        say(f"{found.sweep.images} images at other input sizes. {found.sweep.note}")
        again = any(row.top1_reestimated is not None for row in found.sweep.rows)
        table(
            ["input", "Mult-Adds", "top-1", *(["re-estimated"] if again else [])],
            [
                ["x".join(map(str, row.size)), f"{row.mult_adds / 1e6:,.1f} M", f"{row.top1:.2%}",
                 *([f"{row.top1_reestimated:.2%}"] if row.top1_reestimated is not None else [])]
                for row in found.sweep.rows
            ],
        )  # fmt: skip


def _show_classes(findings: "Findings") -> None:
    seen = sorted((score for score in findings.classes if score.support), key=lambda score: score.f1 or 0)
    which = f"the {_SHOWN} worst of {len(seen)} classes" if len(seen) > _SHOWN else "classes"
    rows = [
        [score.label, str(score.support), *(_per_cent(part) for part in (score.precision, score.recall, score.f1))]
        for score in seen[:_SHOWN]
    ]
    table([which, "pictures", "precision", "recall", "F1"], rows)


def _per_cent(part: float | None) -> str:
    return "-" if part is None else f"{part:.1%}"
