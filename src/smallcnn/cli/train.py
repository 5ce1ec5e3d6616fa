"""`smallcnn train`."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from smallcnn.cli.options import (
    LABELLED,
    as_json,
    columns,
    completed,
    compute,
    device,
    fit,
    groups,
    models,
    root,
    threads,
    workers,
)
from smallcnn.cli.show import print_json, remark, say
from smallcnn.errors import TRAIN, FileError, SmallcnnError, require
from smallcnn.train.recipe import Recipe
from smallcnn.train.recipes import NAMED

if TYPE_CHECKING:
    from smallcnn.image.fit import Fit
    from smallcnn.model.model import Model


def _recipe_options(function: Any) -> Any:
    """Adds one option per field of `Recipe`, with the help from there and the default of each recipe."""
    hints = get_type_hints(Recipe)
    for field in reversed(fields(Recipe)):
        kind, name = hints[field.name], field.name.replace("_", "-")
        inner = [t for t in get_args(kind) if t is not type(None)] if get_origin(kind) is not Literal else []
        help_ = field.metadata["help"] + _defaults(field.name)
        if kind is bool or bool in inner:
            option = click.option(f"--{name}/--no-{name}", field.name, default=None, help=help_)
        else:
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            option = click.option(
                f"--{name}", field.name, default=None, type=click.Choice(choices) if choices else (*inner, kind)[0],
                help=help_,
            )  # fmt: skip
        function = option(function)
    return function


def _started_from(start: Path) -> "Model":
    """The model file `start`, a bundled model, or public weights of this name, fetched unless cached."""
    from smallcnn.checkpoints.catalogue import find
    from smallcnn.cli.pull import pulled
    from smallcnn.model import store
    from smallcnn.model.shipped import located

    start = located(start)
    if not start.exists() and start.name == str(start) and start.suffix.lower() != ".safetensors":
        try:
            known = find(start.name)
        except FileError as error:
            raise FileError(f"{start}: no such file, and {error}") from error
        return pulled(known)
    if start.suffix.lower() != ".safetensors":
        raise SmallcnnError(
            f"{start}: --from takes a .safetensors model file or a name from `smallcnn pull`; "
            "`smallcnn import` turns other weights into a model file"
        )
    return store.load(start)


def _defaults(name: str) -> str:
    """The default of a setting in every recipe; recipes with the same value share an entry."""
    recipes: dict[Any, list[str]] = {}
    for recipe, entry in NAMED.items():
        recipes.setdefault(getattr(entry.recipe, name), []).append(recipe)
    usual = max(recipes, key=lambda value: len(recipes[value]))
    others = [f"{_shown(value)} in {', '.join(who)}" for value, who in recipes.items() if value != usual]
    if not others:
        return "" if usual is None else f"  [default: {_shown(usual)}]"
    first = [] if usual is None else [_shown(usual)]
    return f"  [default: {'; '.join(first + others)}]"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
    return str(value)


@click.command("train")
@click.argument("model", required=False, shell_complete=completed(models))
@click.option("--data", metavar="SOURCE", help=LABELLED)
@click.option(
    "--task",
    type=click.Choice(["classification", "attributes", "detection"]),
    help="task to train for  [default: what the data is labelled with]",
)
@columns
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="model file (.safetensors) or name from `smallcnn pull` to start from, in place of MODEL; or a classifier, to "
    "give MODEL, a detector, its trained backbone",
)
@root
@groups
@click.option(
    "--recipe",
    default="auto",
    shell_complete=completed(lambda: NAMED),
    show_default=True,
    help="name from `smallcnn recipes`; other options override its settings",
)
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="model file to use as a teacher, in addition to the labels"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the run")
@click.option(
    "--resolution",
    type=click.IntRange(1),
    help="side of the input in pixels  [default: the file's own with --from; else 224 for image files, the image size "
    "for arrays]",
)
@fit
@click.option(
    "--resume",
    is_flag=True,
    help="resume the run in --out; needs no MODEL, and --data only if it moved or is a command",
)
@compute
@device
@threads
@workers
@as_json
@_recipe_options
def command(
    model: str | None,
    data: str | None,
    task: str | None,
    columns: tuple[str, ...] | None,
    start: Path | None,
    root: Path | None,
    groups: str | None,
    recipe: str,
    teacher: Path | None,
    out: Path,
    resolution: int | None,
    fit: "Fit | None",
    resume: bool,
    compute: Any,
    device: str,
    threads: int | None,
    workers: int | None,
    json_: bool,
    **changes: Any,
) -> None:
    """Train MODEL on SOURCE and write the run to the folder --out.

    With --from, training starts from the network and weights of a model file, with a new last layer if the classes
    differ. Images with boxes train a detector, such as anchor_free:backbone=mobilenet_v2; with --from and a classifier,
    one over its backbone.

    The folder then holds best.safetensors (highest validation top-1, or mean average precision for attributes and
    boxes), last.safetensors, log.jsonl, report.html and tensorboard/. Only one run at a time can use it. Ctrl-C stops
    after the current step; --resume resumes exactly there.
    """
    require("training", "train", *TRAIN)
    from smallcnn.model.shipped import located
    from smallcnn.report import run as report
    from smallcnn.tasks.metrics import title
    from smallcnn.train import distributed, run

    chosen = {key: value for key, value in changes.items() if value is not None}
    loaded = _started_from(start) if start else None
    network = model or loaded
    if resume and network is None:
        if chosen or task or columns or resolution or fit or groups or recipe != "auto":
            raise SmallcnnError("--resume takes its settings from the run; give no others, or give all of them")
        result = run.resume(
            out, data=data, root=root, teacher=teacher and located(teacher), device=device, threads=threads,
            workers=workers,
        )  # fmt: skip
    elif network is None or data is None:
        missing = "MODEL or --from FILE" if network is None else "--data SOURCE"
        raise SmallcnnError(f"train needs {missing} (or --resume without MODEL, to resume the run in --out)")
    else:
        result = run.train(
            network, data, out, backbone=loaded if model else None, task=task, columns=columns, resolution=resolution,
            fit=fit, recipe=recipe, teacher=teacher and located(teacher), root=root, groups=groups, resume=resume,
            compute=compute, device=device, threads=threads, workers=workers, **chosen,
        )  # fmt: skip
    if not result.finished:
        raise click.exceptions.Exit(130)
    if not distributed.is_first():
        return  # the first process writes the report
    remark("writing the report")
    page = report.of_run(result.folder, result.source, result.goal)
    goal = result.goal
    scores = [result.start.get(goal, -1.0), *(epoch.best(goal) for epoch in result.history)]
    epoch, best = scores.index(max(scores)), max(scores)
    remark(f"report: {page}")
    remark(f"best validation {title(goal)} {best:.2%} in epoch {epoch} of {len(result.history)}")
    if not epoch:
        remark(f"no epoch is better than the network before training: {result.best} holds that")
    remark(f"try it: smallcnn predict {result.best} IMAGE...")
    if json_:
        print_json({
            "folder": str(result.folder), "best": str(result.best), "last": str(result.last), "report": str(page),
            f"best_val_{goal}": best, "best_epoch": epoch, "start": result.start or None,
            "history": [epoch.to_json() for epoch in result.history],
        })  # fmt: skip
    else:
        say(str(result.best))
