"""Running a study: every (row, seed) that is not done yet, one at a time, alone or beside other processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import lock, runtime
from smallcnn.cost import profile
from smallcnn.data.sources import Source, open_source
from smallcnn.errors import DataError, FileError, SmallcnnError, closest
from smallcnn.evaluate import evaluate
from smallcnn.graph import Graph
from smallcnn.metrics import Metrics
from smallcnn.study import results
from smallcnn.study.definition import Row, Study
from smallcnn.study.results import Outcome
from smallcnn.train.compute import Way
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.teacher import digest


@dataclass(frozen=True)
class _Run:
    """One row with one seed; `images` is how many there are to train on, `fingerprint` identifies the data set."""

    row: Row
    seed: int
    graph: Graph
    recipe: Recipe
    folder: Path
    pictures: int
    fingerprint: str

    @property
    def done(self) -> bool:
        return (self.folder / results.RESULT).is_file()

    @property
    def expected_seconds(self) -> float:
        return self.recipe.epochs * self.pictures / self.row.images_per_second

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
    """Trains and measures what is not done in the folder `out`; True if nothing is left, False if others are at work.

    `seeds` and `epochs` left out are the study's; `rows` are names, all if there are none. Each run is a training run
    of its own, OUT/ROW/seed-S, which goes on where it was. Every process that is given the same folder takes runs that
    no other is working on. `root` is where a named set's files are, `teacher` what rows with a teacher learn from.
    `say` gets lines of progress, `finished` is called with all results after each, or once.

    Accuracy is measured on the test part, which nothing is chosen by. Raises DataError if there is none, or if the
    folder holds runs of another data set, recipe or teacher, and in the end, after all others are done, if a run could
    not be trained; KeyboardInterrupt after Ctrl-C and a checkpoint.
    """
    runs = _plan(study, data, root, teacher, out, seeds or study.seeds, epochs or study.recipe.epochs, rows, say)
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
                    outcome = _train_and_measure(current, data, root, teacher, compute, device, threads, workers)
                except DataError as error:  # the loss is no number any more, for one
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
        whose = "1 run is with another process" if len(left) == 1 else f"{len(left)} runs are with other processes"
        say(f"{whose}: {'; '.join(map(str, left))}")
    return not left


def _plan(
    study: Study,
    data: str | Path,
    root: str | Path | None,
    teacher: Path | None,
    out: Path,
    seeds: int,
    epochs: int,
    names: Sequence[str],
    say: Callable[[str], None],
) -> list[_Run]:
    """Every run, in order: all rows with seed 0, then with seed 1, ..."""
    rows = [_find(study, name) for name in names] or study.rows
    taught = any(row.distil for row in rows)
    if taught != bool(teacher):
        what = "rows that learn from a teacher; give its file with" if taught else "no rows here that take a"
        raise SmallcnnError(f"{study.name} has {what} --teacher")
    recipe = replace(study.recipe, epochs=epochs)
    source = open_source(data, root=root, seed=recipe.seed, val_fraction=recipe.val_fraction)
    if "test" not in source.splits:
        raise DataError(f"{data} has no test part, which a study measures on; it has {', '.join(source.splits)}")
    for note in source.notes:
        say(f"note: {note}")
    taught_by = digest(teacher) if teacher else None
    for line in results.read(study, out):
        for outcome in line.outcomes:
            results.check_same(out, outcome, str(data), source.fingerprint, recipe, taught_by)
    pictures = len(source.splits["train"])
    return [
        _Run(row, seed, _build(row, source), replace(recipe, seed=seed), results.run_folder(out, row, seed), pictures,
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
    """Time that the runs which are not done need, by the stated speeds and how far the finished ones were from them."""
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
    """Whether this process alone may work on the run now; the system takes the claim back from one that dies."""
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
    data: str | Path,
    root: str | Path | None,
    teacher: Path | None,
    compute: Way,
    device: str,
    threads: int | None,
    workers: int | None,
) -> Outcome:
    recipe = replace(run.recipe, distil=run.row.distil) if run.row.distil else run.recipe
    teacher = teacher if run.row.distil else None
    result = train(
        run.graph, data, run.folder, recipe=recipe, root=root, teacher=teacher, resume=True, compute=compute,
        device=device, workers=workers,
    )  # fmt: skip
    if result.stopped:  # also if the run is finished: then it is measured next time
        raise KeyboardInterrupt

    def measure(model: Path) -> Metrics:
        return evaluate(runtime.open(model, threads=threads), data, root=root, part="test", workers=workers).metrics

    last, cost = measure(result.last), profile(run.graph)
    return Outcome(
        row=run.row.name,
        seed=run.seed,
        top1=last.top1,
        best_top1=measure(result.best).top1,
        ema_top1=measure(run.folder / "last_ema.safetensors").top1 if run.recipe.ema else None,
        test_images=last.images,
        train_images=run.pictures,
        mult_adds=cost.mult_adds,
        parameters=cost.parameters,
        seconds=sum(record["seconds"] for record in result.history),
        data=Path(result.data).name,
        pictures=run.fingerprint,
        recipe=asdict(run.recipe),
        teacher=digest(teacher) if teacher else None,
    )
