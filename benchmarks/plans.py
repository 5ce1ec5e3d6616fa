"""Default, tuned and exhaustive plans of each network in turns, and estimated against measured time of each step.

    python benchmarks/plans.py --threads 1
    python benchmarks/plans.py mobilenet_v2 --threads 1 --most 200 --exhaustive 7200 --plot plans.svg
    python benchmarks/plans.py mobilenet_v1 mobilenet_v2 --int8 --tuned 45 --exhaustive 0

The default plan, the one after `--tune` and the one after an exhaustive search (every form of every kernel, or the
first `--most`) run in turns, as copies in one program. Measurements are in the cache ($SMALLCNN_CACHE) and results in
the records, so an interrupted run resumes. The default plan's steps are compared with their estimates.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean, median
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from smallcnn.compiler import targets, tune
from smallcnn.compiler.calibrate import of_host
from smallcnn.compiler.calls import Call, Context, Normalisation
from smallcnn.compiler.lower import lower
from smallcnn.compiler.plan import plan
from smallcnn.compiler.stand import Stand
from smallcnn.making import init
from smallcnn.model.tuning import SECONDS
from smallcnn.system.cpu import cpu_name, usable_cores
from smallcnn.system.files import atomic
from smallcnn.transform.fold import fold
from smallcnn.transform.quantize import Settings, quantize

MODELS = (
    "mobilenet_v1", "mobilenet_v1:width=0.5", "mobilenet_v2", "shufflenet_v1:groups=3", "squeezenet_1_1",
    "effnet_cifar", "xception", "shufflenet_v2", "mobilenet_v3_large",
)  # fmt: skip
HOURS = 3600.0


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--int8", is_flag=True, help="quantize the networks first, by their ranges on noise")
@click.option("--threads", default=1, show_default=True, help="number of threads to plan for and to time on")
@click.option("--tuned", default=SECONDS, show_default=True, help="seconds of `--tune`")
@click.option(
    "--exhaustive", default=4 * HOURS, show_default=True, help="seconds of the exhaustive search, at most; 0: none"
)
@click.option("--most", default=10**6, help="forms of each kernel in the exhaustive search  [default: all]")
@click.option("--runs", default=50, show_default=True, help="runs of the comparison")
@click.option("--records", default="plans.json", show_default=True, type=click.Path(path_type=Path), help="results")
@click.option(
    "--plot", type=click.Path(path_type=Path), help=".svg or .png: estimated against measured time of each step"
)
def main(
    models: tuple[str, ...], int8: bool, threads: int, tuned: float, exhaustive: float, most: int, runs: int,
    records: Path, plot: Path | None,
) -> None:  # fmt: skip
    """Compare the plans of MODELs, by default the networks of docs/compiler.md, and print a table as Markdown."""
    known = json.loads(records.read_text("utf-8")) if records.exists() else []
    done = {(one["model"], one["threads"], one["processor"]): one for one in known}
    keys = [(f"{model} int8" if int8 else model, threads, cpu_name()) for model in models or MODELS]
    for key in keys:
        if key not in done or not done[key]["complete"]:
            click.echo(f"{key[0]}, {threads} thread(s)", err=True)
            done[key] = measure(key[0], threads, tuned, exhaustive, most, runs)
            with atomic(records) as temporary:
                temporary.write_text(json.dumps(list(done.values()), indent=1), "utf-8")
    shown = [done[key] for key in keys]
    click.echo(table(shown))
    found = [step for one in shown for step in one["steps"]]
    estimates = f"estimates of {len(found)} steps: median error {error(found):.1%}"
    click.echo(f"\n{threads} thread(s) of {cpu_name()}; median (least); {estimates}")
    if plot:
        scatter(shown, plot)


def measure(model: str, threads: int, tuned: float, exhaustive: float, most: int, runs: int) -> dict[str, Any]:
    """A record of a network, or with " int8" after its name, of that quantized: median and least milliseconds of each
    plan, and the default plan's steps."""
    text, _, int8 = model.partition(" ")
    with TemporaryDirectory() as folder:
        made_of = init(text, Path(folder) / "untrained.safetensors")
    if int8:
        noise = np.random.default_rng(0).integers(0, 256, (2, *made_of.graph.input_shape), np.uint8)
        made_of = quantize(made_of, noise, Settings(equalise=False, correct_bias=False))[0]
    folded, weights = fold(made_of.graph, made_of.weights)
    target = targets.host()
    image = Normalisation(*made_of.preprocessing.scale_and_shift())
    context = Context(target.machine, of_host(target), image, folded.input_shape)
    default = plan(*lower(folded, weights, context.vector), context, threads)
    stand = Stand(context, folded.results, target, threads, usable_cores())
    plans, complete = {"default": default}, not exhaustive
    searches = [("tuned", tuned, tune.MOST), *([("exhaustive", exhaustive, most)] if exhaustive else [])]
    for name, seconds, forms in searches:
        made = tune.search(default, context, threads, stand, seconds=seconds, most=forms)
        plans[name], complete = made.plan, made.complete
    for calls in plans.values():
        stand.compile(calls)
    samples = dict(zip(plans, stand.sample(list(plans.values()), runs), strict=True))
    totals = {name: taken.sum(axis=1) / 1e6 for name, taken in samples.items()}
    return {
        "model": model,
        "threads": threads,
        "processor": cpu_name(),
        "machine_model": context.model.name,
        "seconds": {"tuned": tuned, "exhaustive": exhaustive},
        "most": most,
        "complete": complete,
        "median_ms": {name: float(np.median(taken)) for name, taken in totals.items()},
        "min_ms": {name: float(taken.min()) for name, taken in totals.items()},
        "steps": steps(default, np.median(samples["default"], axis=0), context, threads),
    }


def steps(calls: Sequence[Call], nanoseconds: np.ndarray, context: Context, threads: int) -> list[dict[str, Any]]:
    """Estimated and measured microseconds of the steps that have a choice."""
    estimator = context.estimator(threads)
    return [
        {
            "step": call.label,
            "kernel": type(call.spec).__name__.lower(),
            "estimated_us": estimator.kernel(call.layers, call.choice) / 1e3,
            "measured_us": float(ns) / 1e3,
        }
        for call, ns in zip(calls, nanoseconds, strict=True)
        if call.choice.tiles
    ]


def table(records: Sequence[dict[str, Any]]) -> str:
    """Milliseconds of each plan, and how much faster it is than the default plan."""
    names = tuple(records[0]["median_ms"])
    rows = [["network", *(f"{name}, ms" for name in names), *names[1:], "median error of the estimates"]]
    for record in records:
        times = [f"{record['median_ms'][name]:.3f} ({record['min_ms'][name]:.3f})" for name in names]
        gains = [f"{record['median_ms']['default'] / record['median_ms'][name]:.3f}" for name in names[1:]]
        rows.append([record["model"], *times, *gains, f"{error(record['steps']):.1%}"])
    means = [
        geometric_mean(record["median_ms"]["default"] / record["median_ms"][name] for record in records)
        for name in names[1:]
    ]
    head, *body = [*rows, ["geometric mean", *[""] * len(names), *(f"**{mean:.3f}**" for mean in means), ""]]
    lines = [f"| {' | '.join(row)} |" for row in (head, *body)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def error(found: Sequence[dict[str, Any]]) -> float:
    """Median relative error of the estimates."""
    return median(abs(step["estimated_us"] / step["measured_us"] - 1) for step in found)


def scatter(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Estimated against measured time of every step, by kind of kernel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    found = [step for record in records for step in record["steps"]]
    for kernel in sorted({step["kernel"] for step in found}):
        mine = [step for step in found if step["kernel"] == kernel]
        axes.plot(
            [step["measured_us"] for step in mine],
            [step["estimated_us"] for step in mine],
            ".",
            label=kernel,
            alpha=0.7,
        )
    ends = [bound([step[key] for step in found for key in ("measured_us", "estimated_us")]) for bound in (min, max)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="measured, us", ylabel="estimated, us", aspect="equal")
    axes.set_title(f"{len(found)} steps of {len(records)} networks, median error {error(found):.1%}")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
