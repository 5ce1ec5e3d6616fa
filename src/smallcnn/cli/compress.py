"""`smallcnn compress`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli import options
from smallcnn.cli.show import millions, print_json, progress, remark, say, size, table, warn_untrained
from smallcnn.errors import DataError

if TYPE_CHECKING:
    from smallcnn.compress.pipeline import Compressed, Step
    from smallcnn.model.model import Model


@click.command("compress")
@options.file
@options.data("labelled images to train and to judge on")
@options.root
@click.option("--out", type=click.Path(path_type=Path), help="model file to write (.safetensors)")
@click.option("--prune", metavar="BUDGET", help="remove channels down to these Mult-Adds: 0.5x of FILE's, or 150M")
@click.option(
    "--parameters", metavar="BUDGET", help="remove channels down to these parameters: 0.5x of FILE's, or 1.5M"
)
@click.option(
    "--latency", metavar="BUDGET",
    help="remove channels down to this time of one image: 0.5x of FILE's, or 3ms; the compiler's estimate for one "
    "thread of this machine",
)  # fmt: skip
@click.option(
    "--criterion", type=click.Choice(["taylor", "l1", "l2", "norm", "random"]), default="taylor", show_default=True,
    help="measure of what a channel matters: taylor (change of the loss on training images), l1 or l2 (norm of its "
    "filter), norm (scale of its batch norm) or random",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["global", "layer"]), default="global", show_default=True,
    help="global: channels of all layers compete for what they save; layer: each layer loses the same share",
)  # fmt: skip
@click.option(
    "--step", type=click.IntRange(1), default=8, show_default=True, metavar="N",
    help="multiple of channels to keep, so that vectors stay full",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="rounds of pruning")
@click.option(
    "--low-rank", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
    help="split dense layers and 1x1 convolutions into two thin ones with this share of their Mult-Adds",
)  # fmt: skip
@click.option(
    "--sparse", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
    help="make this share of each layer's weights zero, the smallest; saves bytes, not time",
)  # fmt: skip
@click.option(
    "--share", metavar="BITS|BYTES",
    help="share weights within layers: 5bit for at most 32 values in each, or 500kB for as many as fit; saves bytes, "
    "not time",
)  # fmt: skip
@click.option(
    "--product", metavar="K,D",
    help="product quantization: K codewords for the vectors of every D input channels; saves bytes, not time",
)  # fmt: skip
@click.option(
    "--fine-tune", type=click.IntRange(0), default=8, show_default=True, metavar="EPOCHS",
    help="epochs of training after the rounds, at least half of them after the last; a classifier learns from FILE",
)  # fmt: skip
@click.option(
    "--max-drop", type=click.FloatRange(0), default=1.0, show_default=True, metavar="POINTS",
    help="largest accepted drop of the score, in per cent points",
)  # fmt: skip
@click.option("--anyway", is_flag=True, help="write the file even if the score drops by more")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="folder of the steps, to resume from  [default: OUT_steps, until OUT is written]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="seed of training and random choices"
)
@click.option(
    "--sensitivity", is_flag=True,
    help="write no file, but show the score of FILE when each layer alone loses a quarter, half and three quarters of "
    "its channels, untrained",
)  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="plot of --sensitivity to write (.png, .svg, .pdf)")
@options.device
@options.threads
@options.workers
@options.as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    out: Path | None,
    prune: str | None,
    parameters: str | None,
    latency: str | None,
    criterion: str,
    order: str,
    step: int,
    rounds: int,
    low_rank: float | None,
    sparse: float | None,
    share: str | None,
    product: str | None,
    fine_tune: int,
    max_drop: float,
    anyway: bool,
    folder: Path | None,
    seed: int,
    sensitivity: bool,
    plot: Path | None,
    device: str,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Make FILE a smaller network that is about as accurate.

    Steps are taken in this order: whole channels go (--prune, --parameters or --latency), layers become thin
    (--low-rank), weights become zero (--sparse), share values (--share) or vectors (--product). Each is followed by
    training, but for the last.

    The training images of SOURCE train and show which weights matter; the test split judges, or else the validation
    split. The file is packed, and written only if the score drops by at most --max-drop points. An interrupted run
    resumes with the same command.
    """
    from smallcnn.compress.budget import Budget
    from smallcnn.compress.pipeline import compress
    from smallcnn.compress.pruning import Prune
    from smallcnn.compress.sharing import LowRank, Product, Share, Zeros
    from smallcnn.model.kinds import read
    from smallcnn.model.shipped import located
    from smallcnn.transform.share.product import Codewords
    from smallcnn.transform.share.sharing import Sharing

    budgets = {"mult_adds": prune, "parameters": parameters, "latency": latency}
    given = {measure: text for measure, text in budgets.items() if text is not None}
    if len(given) > 1:
        raise DataError("--prune, --parameters and --latency are budgets of the same step; give one of them")
    steps: list[Step] = [
        Prune(
            budget=Budget.parse(text, measure), criterion=criterion, order=order, step=step, rounds=rounds,  # type: ignore[arg-type]
            epochs=fine_tune,
        )
        for measure, text in given.items()
    ]  # fmt: skip
    if low_rank is not None:
        steps.append(LowRank(share=low_rank, epochs=fine_tune))
    if sparse is not None:
        steps.append(Zeros(zeros=sparse, rounds=rounds, epochs=fine_tune))
    if share is not None:
        steps.append(Share(sharing=Sharing.parse(share, zeros=sparse or 0.0), epochs=fine_tune))
    if product is not None:
        steps.append(Product(codewords=Codewords.parse(product)))
    model = read(located(file))
    warn_untrained(model.facts)
    if sensitivity or plot:
        if steps or out:
            raise DataError("--sensitivity writes no model file; it takes no --out and no budget")
        _sensitivity(
            model, data, plot, json_, root=root, criterion=criterion, seed=seed, device=device, threads=threads,
            workers=workers,
        )  # fmt: skip
        return
    if out is None:
        raise DataError("compress needs --out FILE, or --sensitivity to write none")
    found = compress(
        model, data, out, steps, root=root, max_drop=max_drop, anyway=anyway, folder=folder, seed=seed, device=device,
        threads=threads, workers=workers, say=remark,
    )  # fmt: skip
    first, last = found.rows[0], found.rows[-1]
    if json_:
        print_json({
            "file": str(out), "data": data, "split": found.part, "images": found.judged,
            f"{found.score}_before": first.score, f"{found.score}_after": last.score,
            **{f"{name}_{when}": asdict(row)[name] for name in ("bytes", "mult_adds", "parameters", "milliseconds")
               for when, row in (("before", first), ("after", last))},
            "steps": [asdict(row) for row in found.rows], "layers": [asdict(width) for width in found.widths],
        })  # fmt: skip
        return
    _print(found)
    say(str(out))


def _sensitivity(model: "Model", data: str, plot: Path | None, json_: bool, **means: Any) -> None:
    from smallcnn.compress.sensitivity import sensitivity
    from smallcnn.report import charts
    from smallcnn.tasks.metrics import title

    if plot:
        charts.check_plot(plot)
    with progress("judging") as report:
        found = sensitivity(model, data, report=report, **means)
    if plot:
        charts.save(charts.sensitivity(found), plot)
        remark(f"plot: {plot}")
    if json_:
        print_json(asdict(found))
        return
    say(f"{title(found.score)}, %, without a share of a layer's channels; {100 * found.whole:.1f} with all of them")
    table(
        ["layers", "channels", *(f"-{share:.0%}" for share in found.shares)],
        [[_layers(family.layers), str(family.channels), *(f"{100 * score:.1f}" for score in family.scores)]
         for family in found.families],
    )  # fmt: skip
    say(f"on {found.images} images ({found.part})")


def _layers(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _print(found: "Compressed") -> None:
    from smallcnn.compress.latency import machine
    from smallcnn.tasks.metrics import title

    columns = ["step", f"{title(found.score)}, %", "file", "Mult-Adds", "parameters", "ms"]
    table(columns, [
        [row.name, f"{100 * row.score:.2f}", size(row.bytes), millions(row.mult_adds), millions(row.parameters),
         "-" if row.milliseconds is None else f"{row.milliseconds:.2f}"]
        for row in found.rows
    ])  # fmt: skip
    say(f"on {found.judged} images ({found.part}); ms: the compiler's estimate for one thread, {machine().name}")
