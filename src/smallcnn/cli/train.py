"""`smallcnn train`."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from smallcnn.cli.options import compute, device, root, threads, workers
from smallcnn.cli.show import remark, say
from smallcnn.errors import TRAIN, SmallcnnError, require
from smallcnn.train.recipe import Recipe


def _recipe_options(function: Any) -> Any:
    """One option per field of `Recipe`, its default and help taken from there."""
    hints = get_type_hints(Recipe)
    for field in reversed(fields(Recipe)):
        kind, name = hints[field.name], field.name.replace("_", "-")
        inner = [t for t in get_args(kind) if t is not type(None)] if get_origin(kind) is not Literal else []
        if bool in inner:
            option = click.option(f"--{name}/--no-{name}", field.name, default=None, help=field.metadata["help"])
        else:
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            option = click.option(
                f"--{name}", field.name, default=None, type=click.Choice(choices) if choices else (*inner, kind)[0],
                help=field.metadata["help"],
            )  # fmt: skip
        function = option(function)
    return function


@click.command("train")
@click.argument("model", required=False)
@click.option("--data", metavar="SOURCE", help="folder with one sub-folder per class, .npz, or a named set")
@click.option(
    "--from", "start", type=click.Path(path_type=Path), help="start from this .safetensors, in place of MODEL"
)
@root
@click.option("--recipe", default="auto", show_default=True, help="one of `smallcnn recipes`, for options to change")
@click.option("--teacher", type=click.Path(path_type=Path), help="model file to learn from, beside the labels")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the run")
@click.option(
    "--resolution",
    type=click.IntRange(1),
    help="side of the input; left out, that of --from, 224 for files, their own for arrays",
)
@click.option(
    "--resume", is_flag=True, help="go on with the run in --out; MODEL is then not needed, --data only if it moved"
)
@compute
@device
@threads
@workers
@_recipe_options
def command(
    model: str | None,
    data: str | None,
    start: Path | None,
    root: Path | None,
    recipe: str,
    teacher: Path | None,
    out: Path,
    resolution: int | None,
    resume: bool,
    compute: Any,
    device: str,
    threads: int | None,
    workers: int | None,
    **changes: Any,
) -> None:
    """Train MODEL on SOURCE, into the folder --out.

    With --from, a model file's own network goes on from its weights, with a new last layer if it does not know the
    classes.

    The folder then holds best.safetensors (highest validation top-1), last.safetensors, log.jsonl, report.html and
    tensorboard/. Ctrl-C stops after the current step; --resume goes on exactly there.
    """

    def top1(record: dict[str, Any]) -> float:
        return max(record["val_top1"], record.get("ema_val_top1", 0.0))

    require("training", "train", *TRAIN)
    import torch

    from smallcnn import artifact, report
    from smallcnn.shipped import located
    from smallcnn.train import checkpoint, distributed, run
    from smallcnn.train.loop import CHECKPOINT

    if threads:
        torch.set_num_threads(threads)
    chosen = {key: value for key, value in changes.items() if value is not None}
    if start and model:
        raise SmallcnnError("give MODEL or --from, not both: the file knows its network")
    start = start and located(start)
    if start and start.suffix.lower() != ".safetensors":
        raise SmallcnnError(
            f"{start}: --from takes a .safetensors model file; `smallcnn import` makes one of public weights"
        )
    network = artifact.load(start) if start else model
    if resume and network is None:
        if chosen or resolution or recipe != "auto":
            raise SmallcnnError("--resume takes its settings from the run; leave the others out, or give all of them")
        result = run.resume(out, data=data, root=root, teacher=teacher, device=device, workers=workers)
    elif network is None or data is None:
        missing = "MODEL or --from FILE" if network is None else "--data SOURCE"
        raise SmallcnnError(f"train needs {missing} (or --resume without MODEL, to go on with the run in --out)")
    else:
        result = run.train(
            network, data, out, resolution=resolution, recipe=recipe, teacher=teacher and located(teacher), root=root,
            resume=resume, compute=compute, device=device, workers=workers, **chosen,
        )  # fmt: skip
    if not result.finished:
        raise click.exceptions.Exit(130)
    if not distributed.is_first():
        return  # the first process writes the report
    root = root or checkpoint.read_settings(result.folder / CHECKPOINT)["root"]
    page = report.of_run(result.folder, result.data, root)
    best = max(result.history, key=top1)
    remark(f"report: {page}")
    remark(f"best validation top-1 {top1(best):.2%} in epoch {best['epoch']} of {len(result.history)}")
    remark(f"try it: smallcnn predict {result.best} PICTURE...")
    say(str(result.best))
