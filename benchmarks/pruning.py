"""Accuracy and speed of pruned networks, by criterion, budget and seed: the tables of docs/compress.md.

    python benchmarks/pruning.py FILE --data SOURCE --out FOLDER --budgets 0.5x,0.25x --seeds 0,1,2
    python benchmarks/pruning.py FILE --data SOURCE --out FOLDER --table

Each run is one of `smallcnn compress`, in FOLDER: one that was stopped resumes, one that has finished is not repeated.
`--table` compiles the first seed's file of each row that has finished, times it in turns with FILE (`smallcnn bench`),
and prints the table in Markdown.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import click

from smallcnn.bench.bench import Candidate, time_candidates
from smallcnn.compiler.compiling import compile_file
from smallcnn.compiler.targets import host
from smallcnn.compress.budget import Budget
from smallcnn.compress.pipeline import compress
from smallcnn.compress.pruning import Prune
from smallcnn.model.shipped import located


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="images with labels, as for `smallcnn compress`")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the runs")
@click.option("--budgets", default="0.5x", show_default=True, help="shares of the Mult-Adds")
@click.option("--criteria", default="taylor,reconstruction,l2,random", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--rounds", type=int, help="[default: one for each halving of the Mult-Adds]")
@click.option("--epochs", default=Prune.epochs, show_default=True, help="epochs of fine-tuning")
@click.option("--threads", default=1, show_default=True, help="threads that train, and that are timed")
@click.option("--table", is_flag=True, help="train nothing, print the table")
def main(
    file: Path,
    data: str,
    out: Path,
    budgets: str,
    criteria: str,
    seeds: str,
    rounds: int | None,
    epochs: int,
    threads: int,
    table: bool,
) -> None:
    """Prune FILE, or print the table of what was pruned."""
    out.mkdir(parents=True, exist_ok=True)
    if table:
        _print(located(file), out, threads)
        return
    for seed, budget, criterion in product(seeds.split(","), budgets.split(","), criteria.split(",")):
        name = f"{criterion}-{budget}-{seed}"
        if not (out / f"{name}.json").is_file():
            step = Prune(budget=Budget.parse(budget), criterion=criterion, rounds=rounds, epochs=epochs)  # type: ignore[arg-type]
            found = compress(
                file, data, out / f"{name}.safetensors", [step], anyway=True, seed=int(seed), threads=threads,
                say=lambda line, name=name: click.echo(f"{name}: {line}", err=True),
            )  # fmt: skip
            record = {
                "criterion": criterion, "budget": budget, "score": found.score, "images": found.judged,
                "split": found.part, "rows": [asdict(row) for row in found.rows],
            }  # fmt: skip
            (out / f"{name}.json").write_text(json.dumps(record, indent=1))


def _print(file: Path, out: Path, threads: int) -> None:
    """The table of all runs that have finished."""
    runs: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(out.glob("*-*-*.json")):
        record = json.loads(path.read_text())
        runs.setdefault((record["budget"], record["criterion"]), []).append((path, record))
    times = _times([file, *(found[0][0].with_suffix(".safetensors") for found in runs.values())], out, threads)
    print(
        "| budget | criterion | top-1, by seed | mean - before | Mult-Adds | parameters | file | ms | times as fast |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    (_, first), *_ = next(iter(runs.values()))
    before = first["rows"][0]
    _line("", "before", [before], before, times[0], times[0])
    for ((budget, criterion), found), took in zip(runs.items(), times[1:], strict=True):
        _line(budget, criterion, [record["rows"][-1] for _, record in found], before, took, times[0])
    print(f"\n{first['images']} images ({first['split']}); {threads} thread(s), medians in turns")


def _line(
    budget: str, criterion: str, rows: list[dict[str, Any]], before: dict[str, Any], ms: float, at: float
) -> None:
    scores = [100 * row["score"] for row in rows]
    gain = "" if rows == [before] else f"{mean(scores) - 100 * before['score']:+.2f}"
    cells = [
        budget, criterion, ", ".join(f"{score:.2f}" for score in scores), gain, f"{rows[0]['mult_adds'] / 1e6:.1f} M",
        f"{rows[0]['parameters'] / 1e6:.3f} M", f"{rows[0]['bytes'] / 1e6:.2f} MB", f"{ms:.3f}", f"{at / ms:.2f}",
    ]  # fmt: skip
    print("|", " | ".join(cells), "|")


def _times(files: Sequence[Path], out: Path, threads: int) -> list[float]:
    """Medians of the compiled files in ms, in turns."""
    compiled = []
    for file in files:
        made = out / f"{file.stem}{host().suffixes[0]}"
        if not made.is_file():
            compile_file(file, made, threads=threads)
        compiled.append(Candidate(made, "compiled"))
    return [row.median_ms for row in time_candidates(compiled, threads=threads, seconds=min(60, 8 * len(files)))]


if __name__ == "__main__":
    main()
