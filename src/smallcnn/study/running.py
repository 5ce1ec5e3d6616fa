"""Runs a study: every unfinished (row, seed), one at a time, alone or alongside other processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.cost.profile import profile
from smallcnn.data.sources import Source, open_source
from smallcnn.errors import DataError, FileError, SmallcnnError, closest
from smallcnn.evaluate import evaluate
from smallcnn.ir.graph import Graph
from smallcnn.study import results
from smallcnn.study.definition import Row, Study
from smallcnn.study.results import Outcome
from smallcnn.system import lock
from smallcnn.tasks.metrics import Metrics
from smallcnn.train.compute import Way
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.teacher import digest


@dataclass(frozen=True)
class _Run:
    """One row with one seed; `images` is the number of training images, `fingerprint` identifies the data set."""

    row: Row
    seed: int
    graph: Graph
    recipe: Recipe
    folder: Path
    images: int
    fingerprint: str

    @property
    def done(self) -> bool:
        return (self.folder / results.RESULT).is_file()

    @property
    def expected_seconds(self) -> float:
        return self.recipe.epochs * self.images / self.row.images_per_second

    def __str__(self) -> str:
        return f"{self.row.label}, seed {self.seed}"


def run(
    study: Study,
    data: str | Path,
    out: Path,
    *,
    root: str | Path | None = None,
    teacher: Path | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    rows: Sequence[str] = (),
    compute: Way = "auto",
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    finished: Callable[[Sequence[results.Line]], None] = lambda lines: None,
) -> bool:
    """Trains and measures the unfinished runs in the folder `out`; False if other processes still have some.

    `seeds` and `epochs` default to the study's; `rows` are row names, by default all. Each run is a separate training
    run in OUT/ROW/seed-S, which resumes where it stopped. Processes given the same folder share the runs. `root` is the
    folder with a named set's files, `teacher` the model file for rows with a teacher. `say` receives lines of progress.
    `finished` is called with all results after each run, or once if all were done before.

    Accuracy is measured on the test split; no choice is made on it. Raises DataError if there is no test split, or if
    the folder holds runs of another data set, recipe or teacher. If a run cannot be trained, DataError is raised after
    all others are done. After Ctrl-C and a checkpoint, KeyboardInterrupt is raised.
    """
    recipe = replace(study.recipe, epochs=epochs or study.recipe.epochs)
    source = open_source(data, root=root, seed=recipe.seed, val_fraction=recipe.val_fraction)
    runs = _plan(study, source, teacher, out, seeds or study.seeds, recipe, rows, say)
    failed: dict[int, str] = {}
    if all(run.done for run in runs):
        finished(results.read(study, out))
    while True:
        taken = 0
        for i, current in enumerate(runs, start=1):
            if current.done or i in failed:
                continue
            with _claimed(current.folder) as mine:
                if not mine or current.done:
                    continue
                taken += 1
                say(f"run {i} of {len(runs)}: {current}; {_left(runs)} of training left")
                try:
                    outcome = _train_and_measure(current, source, teacher, compute, device, threads, workers)
                except DataError as error:  # such as a loss that became NaN
                    failed[i] = f"{current}: {error}"
                    say(f"failed: {failed[i]}")
                    continue
                results.write(current.folder, outcome)
                say(f"{current}: {100 * outcome.top1:.2f} % of {outcome.test_images} test images")
            finished(results.read(study, out))
        if not taken:
            break
    if failed:
        count = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        raise DataError(f"{count} of {len(runs)} failed; {next(iter(failed.values()))}")
    left = [run for run in runs if not run.done]
    if left:
        whose = "another process has 1 run" if len(left) == 1 else f"other processes have {len(left)} runs"
        say(f"{whose}: {'; '.join(map(str, left))}")
    return not left


def _plan(
    study: Study,
    source: Source,
    teacher: Path | None,
    out: Path,
    seeds: int,
    recipe: Recipe,
    names: Sequence[str],
    say: Callable[[str], None],
) -> list[_Run]:
    """All runs in order: every row with seed 0, then with seed 1, ..."""
    rows = [_find(study, name) for name in names] or study.rows
    taught = any(row.distil for row in rows)
    if taught != bool(teacher):
        raise SmallcnnError(
            f"{study.name} has rows that learn from a teacher; give its file with --teacher"
            if taught
            else f"{study.name} has no chosen row that learns from a teacher; drop --teacher"
        )
    if "test" not in source.splits:
        raise DataError(
            f"{source.listing.place} has no test split, which a study needs; it has {', '.join(source.splits)}"
        )
    for note in source.notes:
        say(f"note: {note}")
    taught_by = digest(teacher) if teacher else None
    for line in results.read(study, out):
        for outcome in line.outcomes:
            results.check_same(out, outcome, source.listing.place, source.fingerprint, recipe, taught_by)
    images = len(source.splits["train"])
    return [
        _Run(row, seed, _build(row, source), replace(recipe, seed=seed), results.run_folder(out, row, seed), images,
             source.fingerprint)
        for seed in range(seeds)
        for row in rows
    ]  # fmt: skip


def _find(study: Study, name: str) -> Row:
    for row in study.rows:
        if row.name == name:
            return row
    raise SmallcnnError(f"{study.name} has no row {name!r}; {closest(name, [row.name for row in study.rows])}")


def _left(runs: Sequence[_Run]) -> str:
    """Time left for the unfinished runs: from the stated speeds, corrected by the finished runs' real times."""
    done = [run for run in runs if run.done]
    taken = sum(results.read_one(run.folder).seconds for run in done)
    ratio = taken / sum(run.expected_seconds for run in done) if done else 1.0
    minutes = ratio * sum(run.expected_seconds for run in runs if not run.done) / 60
    return f"about {minutes:.0f} minutes" if minutes < 120 else f"about {minutes / 60:.1f} hours"


def _build(row: Row, source: Source) -> Graph:
    images = source.splits["train"].images
    grey = isinstance(images, np.ndarray) and (images.ndim == 3 or images.shape[3] == 1)
    return row.build(classes=len(source.classes), channels=1 if grey else 3)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Claims the run for this process; yields whether it succeeded. The claim ends if the process dies."""
    with ExitStack() as claim:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            claim.enter_context(lock.held(folder.with_name(f"{folder.name}.lock"), wait=False))
            mine = True
        except BlockingIOError:
            mine = False
        except OSError as error:
            raise FileError(f"cannot write into {folder.parent}: {error.strerror}") from error
        yield mine


def _train_and_measure(
    run: _Run,
    source: Source,
    teacher: Path | None,
    compute: Way,
    device: str,
    threads: int | None,
    workers: int | None,
) -> Outcome:
    recipe = replace(run.recipe, distil=run.row.distil) if run.row.distil else run.recipe
    teacher = teacher if run.row.distil else None
    result = train(
        run.graph, source, run.folder, recipe=recipe, teacher=teacher, resume=True, compute=compute,
        device=device, threads=threads, workers=workers,
    )  # fmt: skip
    if result.stopped:  # even if the run is finished: it is measured next time
        raise KeyboardInterrupt

    def measure(model: Path) -> Metrics:
        return evaluate(runtime.open(model, threads=threads), source, part="test", workers=workers).metrics

    last, cost = measure(result.last), profile(run.graph)
    return Outcome(
        row=run.row.name,
        seed=run.seed,
        top1=last.top1,
        best_top1=measure(result.best).top1,
        ema_top1=measure(run.folder / "last_ema.safetensors").top1 if run.recipe.ema else None,
        test_images=last.images,
        train_images=run.images,
        mult_adds=cost.mult_adds,
        parameters=cost.parameters,
        seconds=sum(epoch.seconds for epoch in result.history),
        data=Path(source.listing.place).name,
        pictures=run.fingerprint,
        recipe=asdict(recipe),
        teacher=digest(teacher) if teacher else None,
    )
