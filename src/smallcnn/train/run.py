"""Starting and resuming a training run.

A run lives in a folder: best.safetensors and last.safetensors (models), checkpoint.safetensors (for resuming),
log.jsonl, tensorboard/.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smallcnn.data.sources import NAMED, Data, Source
from smallcnn.errors import DataError, FileError
from smallcnn.image.fit import Fit
from smallcnn.image.overrides import Overrides
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.system import lock, places
from smallcnn.system.cpu import openmp_threads
from smallcnn.system.files import remove_leftovers, write
from smallcnn.train import checkpoint
from smallcnn.train.calibration import calibrated, to_quantize
from smallcnn.train.compute import Way
from smallcnn.train.distributed import decoding_threads, joined, restarted
from smallcnn.train.loop import CHECKPOINT, Loop
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe, check_names
from smallcnn.train.result import Result
from smallcnn.train.settings import Settings, TeacherFile, check_same
from smallcnn.train.start import Start, named, opened, settled, start
from smallcnn.train.teacher import OWN, Teacher, digest, teaches
from smallcnn.transform.quantize import Chosen


def train(
    model: str | Graph | Model,
    data: Data,
    out: str | Path,
    *,
    backbone: Model | None = None,
    task: str | None = None,
    columns: Sequence[str] | None = None,
    resolution: int | None = None,
    fit: Fit | None = None,
    recipe: Recipe | str = "auto",
    teacher: str | Path | None = None,
    root: str | Path | None = None,
    groups: str | Path | None = None,
    resume: bool = False,
    compute: Way = "auto",
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    **changes: Any,
) -> Result:
    """Trains `model` on `data` (see `open_source`; a Source is not listed again) into the folder `out`.

    `model` is one of:
    - a registry name with options;
    - a graph of your own, whose input and number of classes must fit the data;
    - a model (`model.store.load`): the run starts from its weights and uses its preprocessing, with a new last layer
      unless the network knows all labels of the data.

    `backbone` is a classifier whose weights a detector given by name or as a graph starts with.

    `task` is what the data must be labelled for; by default whatever it is. `columns` are the questions to learn from a
    table of attributes, by default all that can be used.

    `resolution` applies to a name or a model. Its default is the model's resolution. For a name it is the network's
    own (mostly 224) with image files, and the images' size, at least 32, with arrays. `fit` says how images fill
    it, by default as the model's do, else by their centre.

    `recipe` is a Recipe, the name of one (see `recipes`), or "auto": the one for fine-tuning, for small images or for
    photographs; with `quantize`, which needs a float model as `model`, the one for quantization-aware training.
    `changes` override its fields. `teacher` is a model file to learn from; with `quantize` it is by default `model`
    itself, if that is a classifier, which the run keeps in teacher.safetensors. `root` is the folder with the files of
    a named set. `groups` says which images must stay on one side of the split (`smallcnn.data.groups`).
    `compute` is the backend of a step: torch, our own kernels or torch.compile; "auto" times the first two.
    `threads` is the number of compute threads of this process from now on, by default torch's, but no more than the
    usable cores (`system.cpu.openmp_threads`). `workers` is the number of decoding threads, by default one per usable
    core up to eight. With `resume` the run in `out` continues, if there is one; its settings must be the same.

    Ctrl-C finishes the step, writes a checkpoint and returns with `finished` false. Errors the user can fix raise a
    subclass of SmallcnnError. Under torchrun the processes compute one run together (docs/distributed.md); such an
    error is then raised in the first process and ends the others with exit code 2.
    """
    check_names(changes)
    set_threads(threads)
    with joined(device) as (ranks, on):
        with ranks.together(), ranks.in_turn():
            plain = replace(named(recipe), **changes)
            cut = data.cut if isinstance(data, Source) else ""
            source = opened(data, plain, root, columns=columns, groups=groups, cut=cut, task=task)
            beginning = start(model, source, resolution, plain.seed, backbone)
            beginning = replace(beginning, preprocessing=Overrides(fit=fit).over(beginning.preprocessing))
            suited = named(recipe, beginning, quantize=bool(changes.get("quantize")))
            chosen = settled(replace(suited, **changes), source, beginning)
            taught_by: Path | Model | None = Path(teacher) if teacher else None
            if chosen.quantize:
                beginning = to_quantize(beginning)
                if teacher is None and isinstance(model, Model) and teaches(model):
                    taught_by = model
        resumed = resume or restarted()
        return _run(beginning, source, out, chosen, taught_by, resumed, compute, on, workers, ranks)


def resume(
    out: str | Path,
    *,
    data: str | Path | None = None,
    root: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
) -> Result:
    """Resumes the run in the folder `out`, with the settings it was started with.

    Pass `data`, `root` and `teacher` only if the images or the teacher's file have moved.
    """
    set_threads(threads)
    with joined(device) as (ranks, on):
        settings = None
        with ranks.together():
            if ranks.first:
                settings = _stored(Path(out))
                data, root, teacher = _places(Path(out), settings, data, root, teacher)
        settings, data, root, teacher = ranks.from_first((settings, data, root, teacher))
        assert settings is not None
        assert data is not None
        with ranks.together(), ranks.in_turn():
            recipe = settings.recipe
            source = opened(data, recipe, root, columns=settings.task, cut=settings.cut)
        beginning = Start(settings.graph, None, settings.preprocessing, settings.start)
        taught_by = Path(teacher) if teacher else None
        return _run(beginning, source, out, recipe, taught_by, True, "auto", on, workers, ranks)


def set_threads(threads: int | None) -> None:
    """Sets torch's number of threads, of the whole process; by default it is lowered to the usable cores."""
    threads = threads or openmp_threads(torch.get_num_threads())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def _stored(out: Path) -> Settings:
    """The settings of the run in `out`."""
    state = out / CHECKPOINT
    if not state.is_file():
        raise DataError(f"{out}: no run to resume here; start one with MODEL and --data")
    return checkpoint.read_settings(state)


def _places(
    out: Path, settings: Settings, data: str | Path | None, root: str | Path | None, teacher: str | Path | None
) -> tuple[str | Path, str | Path | None, str | Path | None]:
    """Places of images, root and teacher: as given, else from the run's checkpoint, as far as `places` allows."""
    try:
        if root is None and settings.root is not None and (data is None or str(data) == settings.source):
            root = places.stored(settings.root, "a folder", "give its place with --root")
        if data is None:
            data = places.stored(settings.source, "a source of images", "give their place with --data")
        if teacher is None and settings.teacher and (out / OWN).is_file():
            teacher = out / OWN  # wherever the folder is now
        if teacher is None and settings.teacher:
            teacher = places.stored(settings.teacher.file, "a teacher", "give its place with --teacher")
    except FileError as error:
        raise FileError(f"{out / CHECKPOINT}: {error}") from error
    return data, root, teacher


def _run(
    beginning: Start,
    source: Source,
    out: str | Path,
    recipe: Recipe,
    teacher: Path | Model | None,
    resume: bool,
    compute: Way,
    on: torch.device,
    workers: int | None,
    ranks: Ranks,
) -> Result:
    folder, resuming = Path(out), False
    begun: Chosen | None = None
    place, root = source.listing.place, source.listing.root
    with ExitStack() as kept:
        with ranks.together():
            if not ranks.alone and compute == "compile":
                raise DataError("--compute compile needs a single process")
            _check_apart(folder, place)
            channels = beginning.graph.input_shape[2]
            taught = Teacher(teacher, source.classes, channels, on) if teacher else None
            settings = Settings(
                graph=beginning.graph,
                preprocessing=beginning.preprocessing,
                task=source.task,
                start=beginning.origin,
                teacher=_file(teacher, folder) if teacher else None,
                source=_kept(place, root),
                root=str(root.resolve()) if root else None,
                images=source.fingerprint + (hashlib.sha256(source.cut.encode()).hexdigest()[:8] if source.cut else ""),
                cut=source.cut,
                recipe=recipe,
                compute=compute,
            )
            if ranks.first:
                _check_folder(folder, settings, resume)
                kept.enter_context(lock.run_folder(folder))
                _check_folder(folder, settings, resume)  # again: another run may have held the lock until now
                remove_leftovers(folder)
                resuming = resume and (folder / CHECKPOINT).is_file()
                if resuming:  # the same backend as before, even if another is faster now or on this processor
                    stored = checkpoint.read_settings(folder / CHECKPOINT)
                    settings = replace(settings, compute=stored.compute, bfloat16=stored.bfloat16, grids=stored.grids)
                if isinstance(teacher, Model):
                    write(folder / OWN, store.content(teacher))
                if recipe.quantize and not resuming:
                    begun = calibrated(
                        beginning, source.splits["train"], seed=recipe.seed, device=on,
                        workers=workers or decoding_threads(),
                    )  # fmt: skip
                    settings = replace(settings, grids=begun.grids)
        settings, begun = ranks.from_first((settings, begun))
        with ranks.together():
            loop = Loop(
                settings, begun.weights if begun else beginning.weights, source, folder, teacher=taught, device=on,
                workers=workers or decoding_threads(), ranks=ranks,
            )  # fmt: skip
        return loop.run(resume=ranks.from_first(resuming))


def _file(teacher: Path | Model, folder: Path) -> TeacherFile:
    """Where the teacher lies; for the run's own, its name in the run's folder, which may move."""
    place = folder / OWN if isinstance(teacher, Model) else teacher
    own = place.resolve() == (folder / OWN).resolve()
    return TeacherFile(file=OWN if own else str(place.resolve()), digest=digest(teacher))


def _kept(place: str, root: Path | None) -> str | None:
    """The place where a later resume finds the images; None for a command, which no file may name."""
    if not places.scheme(place) and not (place in NAMED and (root is not None or not Path(place).exists())):
        place = str(Path(place).resolve())
    return place if places.can_be_stored(place) else None


def _check_apart(folder: Path, place: str) -> None:
    """Raises DataError if the run would write among the images, where the next run would find its files."""
    if Path(place).is_dir() and folder.resolve().is_relative_to(Path(place).resolve()):
        raise DataError(f"{folder}: inside the folder of images {place}; choose an --out outside it")


def _check_folder(folder: Path, settings: Settings, resume: bool) -> None:
    """Raises DataError if this run must not use `folder`. Changes nothing."""
    state = folder / CHECKPOINT
    models = {path.name for path in folder.glob("*.safetensors")} - {OWN}  # that alone is no run yet
    if not resume and models and state.is_file():
        raise DataError(f"{folder} already holds a run; --resume continues it, or choose another --out")
    if not resume and models:
        raise DataError(f"{folder} holds model files, such as {min(models)}; choose another --out")
    if resume and not state.is_file() and models:
        raise DataError(f"{folder} holds models but no {CHECKPOINT} to resume from; choose another --out")
    if state.is_file():
        check_same(folder, checkpoint.read_settings(state), settings)
