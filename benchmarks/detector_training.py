"""Average precision of detectors trained from given files, over several seeds.

    python benchmarks/detector_training.py FILE... --data SOURCE --out FOLDER --seeds 0,1,2

Each FILE is what `smallcnn train --from` takes: a classifier, whose body gets the `--head`, or a detector. Each seed
trains in a folder of its own: a run that was stopped resumes, one that has finished is only evaluated. Files are judged
as by `smallcnn evaluate`, on the test split if there is one, else on the validation split. Prints a table in Markdown,
a row for each FILE: mean (lowest to highest) over the seeds. Minutes are of processor time, all threads together.

The best epoch was chosen on the validation images, so its figures flatter a little; those of the last epoch do not.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click

import smallcnn
from smallcnn.ir.predictors import detector
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.train.compute import Way
from smallcnn.train.result import Result
from smallcnn.train.run import train
from smallcnn.train.start_detector import usual_detector


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, help="images with boxes, as for `smallcnn train`")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the runs")
@click.option("--seeds", default="0,1,2", show_default=True, help="one run for each")
@click.option("--resolution", type=int, help="input size; by default that of FILE")
@click.option("--epochs", type=int, help="epochs of each run; by default those of the recipe")
@click.option("--head", default="anchor_free", show_default=True, help="detector over the body of a classifier")
@click.option("--mosaic", default=0.0, help="share of the images in mosaics")
@click.option("--compute", default="kernels", show_default=True, type=click.Choice(("torch", "kernels")))
@click.option("--threads", default=1, show_default=True, help="threads that train")
def main(
    files: Sequence[Path], data: str, out: Path, seeds: str, resolution: int | None, epochs: int | None,
    head: str, mosaic: float, compute: Way, threads: int,
) -> None:  # fmt: skip
    """Print a row for each of FILES."""
    changes: dict[str, Any] = {"mosaic": mosaic} | ({} if epochs is None else {"epochs": epochs})
    print("| start | input | epochs | minutes | AP | AP50 | AP, AP50 of the last epoch | judged on |")
    print("|---|---|---|---|---|---|---|---|")
    for file in files:
        runs: list[Result] = []
        for seed in map(int, seeds.split(",")):
            folder = out / f"{file.stem}-seed{seed}"
            started = time.process_time()
            start: Model | str = (model := read(file))
            backbone = None if detector(model.graph) else model
            if backbone:
                start = f"{head}:{usual_detector(model.graph).partition(':')[2]}"
            run = train(
                start, data, folder, backbone=backbone,
                resolution=resolution, resume=True, compute=compute, threads=threads, seed=seed, **changes,
            )  # fmt: skip
            spent = folder / "processor_minutes.txt"
            before = float(spent.read_text(encoding="utf-8")) if spent.exists() else 0.0
            spent.write_text(f"{before + (time.process_time() - started) / 60:.3f}\n", encoding="utf-8")
            if not run.finished:
                raise SystemExit(f"stopped in {folder}; the same command resumes")
            runs.append(run)
        print("|", " | ".join([file.stem, *_cells(runs, data)]), "|", flush=True)


def _cells(runs: Sequence[Result], data: str) -> list[str]:
    """The cells of a row after its first."""
    best = [smallcnn.evaluate(run.best, data) for run in runs]
    last = [smallcnn.evaluate(run.last, data) for run in runs]
    height, width = read(runs[0].best).preprocessing.size
    minutes = [float((run.folder / "processor_minutes.txt").read_text(encoding="utf-8")) for run in runs]
    ap, ap50, last_ap, last_ap50 = (
        _spread([100 * one.scores[name] for one in among])
        for among in (best, last)
        for name in ("map", "map50")
    )  # fmt: skip
    return [
        f"{height}x{width}", _spread([len(run.history) for run in runs], ".0f"), _spread(minutes), ap, ap50,
        f"{last_ap}, {last_ap50}", f"{best[0].images}, {best[0].part}",
    ]  # fmt: skip


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    """The mean, and the range if there is one."""
    low, middle, high = (format(figure, form) for figure in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
