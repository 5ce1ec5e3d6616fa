"""`smallcnn analyze`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, progress, remark, say, table, warn_untrained
from smallcnn.errors import SmallcnnError, require

if TYPE_CHECKING:
    from smallcnn.analysis.analyze import Analysis
    from smallcnn.analysis.findings import Findings

_SHOWN = 10


@click.command("analyze")
@options.file
@options.labelled
@options.root
@options.part
@options.crop
@click.option("--resolution", type=click.IntRange(1), help="input size to change the network to first")
@click.option(
    "--reestimate",
    is_flag=True,
    help="recompute batch norm's statistics from the training split, or the evaluated images if there is none",
)
@click.option("--calibrate", is_flag=True, help="divide the logits by the temperature that fits these images")
@click.option(
    "--save", "saved", type=click.Path(path_type=Path), help="file to write the changed network to (.safetensors)"
)
@click.option(
    "--sweep", "sweep_images", type=click.IntRange(0),
    help="number of images to try at each of six input sizes; 0 for no sweep  [default: as many as take a few seconds]",
)  # fmt: skip
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="least score of the errors to count and show of a detector  [default: the one with the highest F1]",
)
@click.option("--out", type=click.Path(path_type=Path), help="report to write, with images (.html)")
@options.engine
@options.threads
@options.workers
@options.as_json
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
    threshold: float | None,
    out: Path | None,
    engine: str | None,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Find the errors of FILE on SOURCE, the calibration of its probabilities, and its accuracy at other input sizes.

    --resolution, --reestimate and --calibrate change the network without training. The accuracy after each step is
    printed, and --save writes the result.

    Of a detector, they are its errors by kind and their cost, the best threshold for its scores, and whether these can
    be trusted.
    """
    from smallcnn import runtime
    from smallcnn.cli import analyze_objects
    from smallcnn.cli.remarks import near_copies, remarks
    from smallcnn.tasks.classification import classification
    from smallcnn.tasks.detection import detection

    _check(saved, out, changed=bool(resolution or reestimate or calibrate))
    net = runtime.open(file, engine=engine, threads=threads)
    warn_untrained(net.facts)
    if net.task.kind == "detection":
        given = {"--resolution": resolution, "--reestimate": reestimate, "--calibrate": calibrate,
                 "--sweep": sweep_images}  # fmt: skip
        for name in (name for name, value in given.items() if value):
            classification(net.task, name)
        analyze_objects.run(
            net, data, root=root, part=part, crop=crop, threshold=threshold, out=out, workers=workers, json_=json_
        )
        return
    if threshold is not None:
        detection(net.task, "--threshold")
    from smallcnn.analysis.analyze import analyze
    from smallcnn.analysis.findings import as_dict
    from smallcnn.model import store

    with progress("analyzing") as bar:
        found = analyze(
            file, data, root=root, part=part, crop=crop, resolution=resolution, reestimate=reestimate,
            calibrate=calibrate, sweep_images=sweep_images, engine=engine, threads=threads, workers=workers, net=net,
            report=lambda _what, done, total: bar(done, total),
        )  # fmt: skip
    evaluation = found.findings.evaluation
    remarks(evaluation)
    alike = near_copies(evaluation, workers)
    if found.no_sweep:
        remark(f"other input sizes not tried: {found.no_sweep}")
    if saved and found.model:
        store.save(found.model, saved)
        remark(f"saved: {saved}")
    if out:
        from smallcnn.report import file as report

        report.of_analysis(out, found, data)
        remark(f"report: {out}")
    if json_:
        metrics = evaluation.metrics
        print_json({
            "file": str(file), "engine": found.net.engine, "data": data, "split": evaluation.part,
            "part": evaluation.part, "top1": metrics.top1, "top5": metrics.top5, "loss": metrics.loss,
            "images": metrics.images, "skipped": list(evaluation.skipped),
            "left_out": evaluation.source.left_out.as_dict(), "near_duplicates": alike and alike.as_dict(),
            "steps": [asdict(step) for step in found.steps], **as_dict(found.findings, found.sweep),
        })  # fmt: skip
    else:
        _show(file, data, found)


def _check(saved: Path | None, out: Path | None, changed: bool) -> None:
    """Raises the errors that would otherwise come after the work."""
    from smallcnn.system.files import check_suffix, check_writable

    if saved and not changed:
        raise SmallcnnError("--save needs a change to save: --resolution, --reestimate or --calibrate")
    if saved and saved.suffix.lower() != ".safetensors":
        raise SmallcnnError(f"{saved}: --save writes a model file, whose name ends in .safetensors")
    if out:
        require("a page with plots", "train", "matplotlib")
    if out:
        check_suffix(out, ".html", "a report")
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
        say(f"  {pair.count} of {findings.labels[pair.true]} predicted as {findings.labels[pair.taken]}")
    _show_classes(findings)
    if found.sweep:
        say(f"{found.sweep.images} images at other input sizes. {found.sweep.note}")
        again = any(row.top1_reestimated is not None for row in found.sweep.rows)
        table(
            ["input size", "Mult-Adds", "top-1", *(["top-1 re-estimated"] if again else [])],
            [
                ["x".join(map(str, row.size)), f"{row.mult_adds / 1e6:,.1f} M", f"{row.top1:.2%}",
                 *([f"{row.top1_reestimated:.2%}" if row.top1_reestimated is not None else ""] if again else [])]
                for row in found.sweep.rows
            ],
        )  # fmt: skip


def _show_classes(findings: "Findings") -> None:
    seen = sorted((score for score in findings.classes if score.support), key=lambda score: score.f1 or 0)
    which = f"{_SHOWN} worst of {len(seen)} classes" if len(seen) > _SHOWN else "class"
    rows = [
        [score.label, str(score.support), *(_per_cent(share) for share in (score.precision, score.recall, score.f1))]
        for score in seen[:_SHOWN]
    ]
    table([which, "images", "precision", "recall", "F1"], rows)


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
