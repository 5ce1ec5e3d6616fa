"""Accuracy of int8 files that were trained for it, next to the float file and to its bytes without training.

    python benchmarks/quantized_training.py FILE --data SOURCE --out FOLDER --seeds 0,1,2

FILE is a trained float model that knows the labels of SOURCE. Each seed trains as `smallcnn train --quantize` does, in
a folder of its own: a run that was stopped resumes, one that has finished is only evaluated. All are judged as by
`smallcnn evaluate`, in ONNX Runtime: on the test split if there is one, else on the validation split. Prints a table in
Markdown.
"""

from pathlib import Path
from statistics import mean
from typing import Any

import click

import smallcnn
from smallcnn.model.kinds import read
from smallcnn.train.run import train


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, help="images with labels, as for `smallcnn train`")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the runs")
@click.option("--seeds", default="0,1,2", show_default=True, help="one run for each")
@click.option("--epochs", type=int, help="epochs of each run; by default those of the recipe")
@click.option("--threads", default=1, show_default=True, help="threads that train")
def main(file: Path, data: str, out: Path, seeds: str, epochs: int | None, threads: int) -> None:
    """Print the row of FILE."""
    out.mkdir(parents=True, exist_ok=True)
    quantized = out / "quantized.safetensors"
    smallcnn.quantize(file, data, quantized, anyway=True)
    before = smallcnn.evaluate(file, data)
    exact, rounded = (100 * one.scores["top1"] for one in (before, smallcnn.evaluate(quantized, data)))
    changes: dict[str, Any] = {"quantize": True} | ({} if epochs is None else {"epochs": epochs})
    trained: list[float] = []
    for seed in map(int, seeds.split(",")):
        folder = out / f"seed{seed}"
        run = train(read(file), data, folder, resume=True, threads=threads, seed=seed, **changes)
        if not run.finished:
            raise SystemExit(f"stopped in {folder}; the same command resumes")
        trained.append(100 * smallcnn.evaluate(run.best, data).scores["top1"])
    print("| network | float | quantized | trained, by seed | their mean - float | images |")
    print("|---|---:|---:|---|---:|---|")
    each = ", ".join(f"{one:.2f}" for one in trained)
    row = [file.stem, f"{exact:.2f}", f"{rounded:.2f}", each, f"{mean(trained) - exact:+.2f}"]
    print("|", " | ".join([*row, f"{before.images}, {before.part}"]), "|")


if __name__ == "__main__":
    main()
