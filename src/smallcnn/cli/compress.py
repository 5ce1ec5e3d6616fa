"""`smallcnn compress`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from smallcnn.cli import options
from smallcnn.cli.compressed import print_steps, print_trials, record
from smallcnn.cli.show import print_json, progress, remark, say, table, warn_untrained
from smallcnn.errors import DataError

if TYPE_CHECKING:
    from smallcnn.compress.budget import Budget
    from smallcnn.compress.pipeline import Step
    from smallcnn.model.model import Model


@click.command("compress")
@options.file
@options.data("labelled images to train and to judge on")
@options.root
@click.option("--out", type=click.Path(path_type=Path), help="model file to write (.safetensors)")
@click.option(
    "--size", metavar="BYTES",
    help="bytes of the file to reach: 500kB, or 0.1x for a tenth of FILE; alone or with --latency, find the steps; "
    "else share weights in as many bits as fit",
)  # fmt: skip
@click.option(
    "--latency", metavar="BUDGET",
    help="time of one image to reach, measured, compiled for one thread of this machine: 3ms, or 0.5x for half of "
    "FILE's time; alone or with --size, find the steps; else remove channels",
)  # fmt: skip
@click.option(
    "--prune", metavar="BUDGET",
    help="remove channels down to these Mult-Adds: 0.5x of FILE's, or 150M; or to a time of one image, 3ms",
)  # fmt: skip
@click.option(
    "--parameters", metavar="BUDGET", help="remove channels down to these parameters: 0.5x of FILE's, or 1.5M"
)
@click.option(
    "--criterion", type=click.Choice(["reconstruction", "taylor", "l1", "l2", "norm", "random"]),
    default="reconstruction", show_default=True,
    help="measure of what a channel matters: reconstruction (change of the next layers' results on training images), "
    "taylor (change of the loss on them), l1 or l2 (norm of its filter), norm (scale of its batch norm) or random",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0), default=0.0, show_default=True, metavar="L1",
    help="before --criterion norm, train for the epochs of --fine-tune with this L1 penalty on batch-norm scales",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["global", "layer"]), default="global", show_default=True,
    help="global: channels of all layers compete for what they save; layer: each layer loses the same share",
)  # fmt: skip
@click.option(
    "--step", type=click.IntRange(1), default=8, show_default=True, metavar="N",
    help="multiple of channels to keep, so that vectors stay full",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1), metavar="N",
    help="rounds of removing, each followed by training  [default: one for each halving; 3 of --sparse]",
)  # fmt: skip
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
    "--hashed", type=click.FloatRange(0, 0.5, min_open=True), metavar="SHARE",
    help="hash the weights of each layer into this share of as many values, then train them; saves bytes, not time",
)  # fmt: skip
@click.option(
    "--product", metavar="K,D",
    help="product quantization: K codewords for the vectors of every D input channels; saves bytes, not time",
)  # fmt: skip
@click.option("--int8", is_flag=True, help="compute with bytes, as `smallcnn quantize` does; the last step")
@click.option(
    "--fine-tune", type=click.IntRange(0), default=8, show_default=True, metavar="EPOCHS",
    help="epochs of training after the rounds, at least two thirds after the last; a classifier learns from FILE",
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
@click.option("--plot", type=click.Path(path_type=Path), help="plot the --sensitivity, too (.png, .svg, .pdf)")
@options.device
@options.threads
@options.workers
@options.as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    out: Path | None,
    size: str | None,
    latency: str | None,
    prune: str | None,
    parameters: str | None,
    criterion: str,
    sparsity: float,
    order: str,
    step: int,
    rounds: int | None,
    low_rank: float | None,
    sparse: float | None,
    share: str | None,
    hashed: float | None,
    product: str | None,
    int8: bool,
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

    Given only --size, --latency or both, combinations of steps are tried, and the best is trained: fewer channels, low
    rank, shared weights, int8. Steps that are named are taken in this order: whole channels go (--prune, --parameters
    or --latency), layers become thin (--low-rank), weights become zero (--sparse), share values (--share or --size) or
    vectors (--product) or are hashed (--hashed), and become bytes (--int8). Each is followed by training, but for
    vectors and bytes.

    The training images of SOURCE train and show which weights matter; the test split judges, or else the validation
    split. The file is packed, and written only if the score drops by at most --max-drop points. An interrupted run
    resumes with the same command.
    """
    from smallcnn.compress.budget import Budget, Limits, parse_size
    from smallcnn.compress.pipeline import compress
    from smallcnn.compress.pruning import Prune
    from smallcnn.compress.search import search
    from smallcnn.model.kinds import read
    from smallcnn.model.shipped import located

    if sparsity and not fine_tune:
        raise DataError("--sparsity needs epochs of training: give --fine-tune")
    path = located(file)
    model = read(path)
    limits = Limits(None if size is None else parse_size(size, path.stat().st_size), None)
    pruning = Prune(
        budget=Budget("mult_adds", 0.5, relative=True), criterion=criterion, order=order, step=step, rounds=rounds,  # type: ignore[arg-type]
        epochs=fine_tune, sparsity=sparsity,
    )  # fmt: skip
    budget = _budget(prune, parameters, latency, int8=int8)
    if budget and budget.timed and not budget.relative:
        limits = replace(limits, milliseconds=budget.amount)
    steps: list[Step] = [replace(pruning, budget=budget)] if budget else []
    steps += _after_pruning(
        low_rank, sparse, share, limits.bytes, hashed, product, int8=int8, epochs=fine_tune, rounds=rounds
    )
    named = int8 or any(one is not None for one in (prune, parameters, low_rank, sparse, share, hashed, product))
    searches, shown = bool(steps) and not named, sensitivity or plot is not None
    prunes, pruning_options = budget or searches, "removing channels: give --prune, --parameters or --latency"
    _check_used(pruning_options, prunes, "order", "step")
    _check_used(pruning_options, prunes or shown, "criterion")
    _check_used("--prune, --parameters, --latency or --sparse", prunes or sparse, "rounds")
    warn_untrained(model.facts)
    if shown:
        if steps or out:
            raise DataError("--sensitivity and --plot write no model file; they take no --out and no budget")
        _sensitivity(
            model, data, plot, json_, root=root, criterion=criterion, seed=seed, device=device, threads=threads,
            workers=workers,
        )  # fmt: skip
        return
    if out is None:
        raise DataError("compress needs --out FILE, or --sensitivity to write none")
    how: dict[str, Any] = {
        "root": root, "max_drop": max_drop, "anyway": anyway, "folder": folder, "seed": seed, "device": device,
        "threads": threads, "workers": workers, "say": remark,
    }  # fmt: skip
    searched = None
    if searches:
        searched = search(path, data, out, size=limits.bytes, latency=budget, prune=pruning, **how)
        found = searched.compressed
    else:
        found = compress(path, data, out, steps, limits=limits, **how)
    if json_:
        print_json(record(found, searched, out, data))
        return
    if searched:
        print_trials(searched, found.score)
    print_steps(found)
    say(str(out))


def _check_used(purpose: str, used: object, *names: str) -> None:
    """Raises DataError for an option that was given and has no effect."""
    context = click.get_current_context()
    for name in names:
        if not used and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise DataError(f"--{name} is for {purpose}")


def _budget(prune: str | None, parameters: str | None, latency: str | None, *, int8: bool) -> "Budget | None":
    """The budget of pruning. A time in ms is that of the network that comes out, so with `int8` that of its bytes."""
    from smallcnn.compress.budget import Budget

    given = {"mult_adds": prune, "parameters": parameters, "latency": latency}
    texts = [(measure, text) for measure, text in given.items() if text is not None]
    if len(texts) > 1:
        raise DataError("--prune, --parameters and --latency are budgets of the same step; give one of them")
    if not texts:
        return None
    measure, text = texts[0]
    budget = Budget.parse(text, "latency" if text == prune and text.strip().lower().endswith("ms") else measure)
    return replace(budget, measure="int8_latency") if int8 and budget.timed and not budget.relative else budget


def _after_pruning(
    low_rank: float | None, sparse: float | None, share: str | None, size: int | None, hashed: float | None,
    product: str | None, *, int8: bool, epochs: int, rounds: int | None,
) -> "list[Step]":  # fmt: skip
    """The other steps, in their order."""
    from smallcnn.compress.integers import Int8
    from smallcnn.compress.sharing import Fit, Hash, LowRank, Product, Share, Zeros
    from smallcnn.transform.share.product import Codewords
    from smallcnn.transform.share.sharing import Sharing

    if len([one for one in (share, size, hashed, product) if one is not None]) > 1:
        raise DataError("--share, --size, --hashed and --product are ways to share weights; give one of them")
    if sparse is not None and hashed is not None:
        raise DataError("--hashed leaves no weight zero; it takes no --sparse")
    if sparse is not None and size is not None:
        raise DataError("--size chooses zeros and shared weights itself; it takes no --sparse")
    steps: list[Step] = []
    if low_rank is not None:
        steps.append(LowRank(share=low_rank, epochs=epochs))
    if sparse is not None:
        steps.append(Zeros(zeros=sparse, rounds=rounds or Zeros.rounds, epochs=epochs))
    if share is not None:
        steps.append(Share(sharing=Sharing.parse(share, zeros=sparse or 0.0), epochs=epochs))
    if size is not None:
        steps.append(Fit(size=size, int8=int8, epochs=epochs))
    if hashed is not None:
        steps.append(Hash(share=hashed, epochs=epochs))
    if product is not None:
        steps.append(Product(codewords=Codewords.parse(product)))
    if int8:
        steps.append(Int8())
    return steps


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
