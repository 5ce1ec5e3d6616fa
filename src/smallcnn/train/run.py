"""Starting a training run and going on with one.

A run lives in a folder: best.safetensors and last.safetensors (models), checkpoint.safetensors (what resuming needs),
log.jsonl, tensorboard/.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn import zoo
from smallcnn.data.sources import Source, open_source
from smallcnn.errors import DataError
from smallcnn.files import remove_leftovers
from smallcnn.train import checkpoint
from smallcnn.train.device import pick_device
from smallcnn.train.loop import CHECKPOINT, Loop, Result
from smallcnn.train.recipe import Recipe

_SMALL = 64  # pixels; up to here "auto" augments as for small pictures


def train(
    model: str,
    data: str | Path,
    out: str | Path,
    *,
    resolution: int | None = None,
    recipe: Recipe | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int = 2,
) -> Result:
    """Trains `model` (a registry name with options) on `data` (see `open_source`) into the folder `out`.

    `resolution` left out is 224 for picture files, and the pictures' own size, but at least 32, for arrays. `workers`
    threads decode. With `resume` the run in `out` goes on; its settings must be the same.

    Ctrl-C finishes the step, writes a checkpoint and returns with `finished` false. Raises SmallcnnError subclasses for
    whatever the user can mend.
    """
    recipe = recipe or Recipe()
    source = open_source(data, seed=recipe.seed, val_fraction=recipe.val_fraction)
    if "train" not in source.splits:
        raise DataError(f"{data}: no training pictures")
    if len(source.classes) < 2:
        raise DataError(f"{data}: one class only, {source.classes[0]!r}; a classifier needs at least two")
    if not len(source.splits["val"]):
        raise DataError(f"{data}: too few pictures to keep any for validation; every class has only one")
    side, channels = _input_of(source, resolution)
    recipe = _settled(recipe, source, side)
    graph = zoo.parse(model).build(resolution=side, classes=len(source.classes), channels=channels)
    settings = {
        "model": graph.name,
        "resolution": side,
        "source": str(data),
        "pictures": source.fingerprint,
        "recipe": asdict(recipe),
    }
    folder = _run_folder(Path(out), settings, resume)
    loop = Loop(graph, source, recipe, folder, settings, device=pick_device(device), workers=workers)
    return loop.run(resume=resume and (folder / CHECKPOINT).is_file())


def resume(out: str | Path, *, device: str = "auto", workers: int = 2) -> Result:
    """Goes on with the run in the folder `out`, with the settings it was started with."""
    state = Path(out) / CHECKPOINT
    if not state.is_file():
        raise DataError(f"{out}: no run to resume here; start one with MODEL and --data")
    settings = checkpoint.read_settings(state)
    return train(
        settings["model"], settings["source"], out, resolution=settings["resolution"],
        recipe=Recipe.from_dict(settings["recipe"]), resume=True, device=device, workers=workers,
    )  # fmt: skip


def _input_of(source: Source, resolution: int | None) -> tuple[int, int]:
    """(side, channels) of the network's input."""
    images = source.splits["train"].images
    if isinstance(images, np.ndarray):
        grey = images.ndim == 3 or images.shape[3] == 1
        return resolution or max(32, *images.shape[1:3]), 1 if grey else 3
    return resolution or 224, 3


def _settled(recipe: Recipe, source: Source, side: int) -> Recipe:
    """The recipe with everything left open decided, so that it can be stored and compared."""
    augment = ("small" if side <= _SMALL else "photo") if recipe.augment == "auto" else recipe.augment
    mirror = source.mirror if recipe.mirror is None else recipe.mirror
    return replace(recipe, augment=augment, mirror=mirror, lr=recipe.peak_lr, weight_decay=recipe.decay)


def _run_folder(folder: Path, settings: dict[str, Any], resume: bool) -> Path:
    state = folder / CHECKPOINT
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the run folder {folder}: {error.strerror}") from error
    remove_leftovers(folder)
    if state.is_file() and not resume:
        raise DataError(f"{folder} already holds a run; --resume to go on with it, or choose another --out")
    if state.is_file():
        stored = checkpoint.read_settings(state)
        old, new = (_flat(values) for values in (stored, settings))
        changed = [f"{key} was {old.get(key)}, now {new.get(key)}" for key in old | new if old.get(key) != new.get(key)]
        if changed:
            raise DataError(f"{folder}: cannot resume with other settings: {'; '.join(changed)}")
    return folder


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same to resume; the pictures may have moved, but not changed."""
    return {k: v for k, v in settings.items() if k not in ("recipe", "source")} | settings["recipe"]
