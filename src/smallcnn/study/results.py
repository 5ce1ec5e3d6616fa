"""A study's folder: one result.json per finished run, and the statistics over them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_origin, get_type_hints

from smallcnn.errors import DataError
from smallcnn.study.definition import Row, Study
from smallcnn.system.files import atomic, check_regular
from smallcnn.train.recipe import Recipe

RESULT = "result.json"
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """One finished run.

    Accuracies are fractions of the test split: `top1` with the last epoch's weights, `best_top1` with those that were
    best on the validation split, `ema_top1` with the averaged ones (None without an average). `pictures` identifies the
    data set and `teacher` the teacher's file; `recipe` is the whole recipe, with the seed.
    """

    row: str
    seed: int
    top1: float
    best_top1: float
    ema_top1: float | None
    test_images: int
    train_images: int
    mult_adds: int
    parameters: int
    seconds: float
    data: str
    pictures: str
    recipe: dict[str, Any]
    teacher: str | None = None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divided by n - 1; None if n is 1) of n accuracies, in percent."""

    mean: float
    deviation: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.deviation is None else f"{self.mean:.2f} ± {self.deviation:.2f}"


def spread(fractions: Sequence[float]) -> Spread | None:
    """The spread of accuracies given as fractions; None if there are none."""
    if not fractions:
        return None
    percent = [100 * fraction for fraction in fractions]
    return Spread(fmean(percent), stdev(percent) if len(percent) > 1 else None, len(percent))


@dataclass(frozen=True)
class Line:
    """A row of the study with its finished runs, sorted by seed."""

    row: Row
    outcomes: tuple[Outcome, ...]

    @property
    def top1(self) -> Spread | None:
        """Test accuracy after the last epoch: the headline."""
        return spread([outcome.top1 for outcome in self.outcomes])

    @property
    def best(self) -> Spread | None:
        """Test accuracy of the epoch that was best on the validation split."""
        return spread([outcome.best_top1 for outcome in self.outcomes])

    @property
    def ema(self) -> Spread | None:
        """Test accuracy of the averaged weights, if all runs have them."""
        values = [outcome.ema_top1 for outcome in self.outcomes if outcome.ema_top1 is not None]
        return spread(values) if len(values) == len(self.outcomes) else None


def run_folder(out: Path, row: Row, seed: int) -> Path:
    """The folder of the run of `row` with `seed`."""
    return out / row.name / f"seed-{seed}"


def write(folder: Path, outcome: Outcome) -> None:
    """Writes the result into a run's folder, which marks the run as done."""
    with atomic(folder / RESULT) as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=2))


def read_one(folder: Path) -> Outcome:
    """The result in a run's folder. Raises DataError if it is not valid."""
    path = folder / RESULT
    try:
        check_regular(path)
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"larger than {_LARGEST >> 20} MB")
        outcome = Outcome(**json.loads(path.read_text()))
        for name, kind in get_type_hints(Outcome).items():
            value = getattr(outcome, name)
            if not isinstance(value, dict if get_origin(kind) is dict else kind):
                raise TypeError(f"{name} is {ascii(value)[:50]}")
        return outcome
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not the result of a study run ({error}); remove it to finish the run") from error


def read(study: Study, out: Path) -> tuple[Line, ...]:
    """Every row with its finished runs in the folder `out`.

    Raises DataError if the runs differ in data set, recipe or teacher.
    """
    lines = []
    for row in study.rows:
        outcomes = (read_one(path.parent) for path in out.glob(f"{row.name}/seed-*/{RESULT}"))
        lines.append(Line(row, tuple(sorted(outcomes, key=lambda outcome: outcome.seed))))
    done = [outcome for line in lines for outcome in line.outcomes]
    teacher = next((outcome.teacher for outcome in done if outcome.teacher), None)
    for outcome in done:
        check_same(out, outcome, done[0].data, done[0].pictures, Recipe.from_dict(done[0].recipe), teacher)
    return tuple(lines)


OF_ROW = ("seed", "distil")
"""What differs between the rows of a study, or the runs of a row."""


def check_same(out: Path, outcome: Outcome, data: str, pictures: str, recipe: Recipe, teacher: str | None) -> None:
    """Raises DataError unless `outcome` was trained on these images with this recipe, apart from the seed and what its
    row changes.

    If both have a teacher, it must be the same.
    """
    if outcome.teacher and teacher and outcome.teacher != teacher:
        raise DataError(f"{out} holds runs that learned from another teacher; use another --out")
    if outcome.pictures != pictures:
        raise DataError(f"{out} holds runs on {outcome.data}, not the images of {data}; use another --out")
    old, new = asdict(Recipe.from_dict(outcome.recipe)), asdict(recipe)
    changed = [f"{key} {old[key]} and {new[key]}" for key in old if old[key] != new[key] and key not in OF_ROW]
    if changed:
        raise DataError(f"{out} holds runs of two recipes, with {', '.join(changed)}; use another --out")


def as_json(study: Study, lines: Sequence[Line]) -> dict[str, Any]:
    """The table for machines. Accuracies of runs are fractions; means and standard deviations are percent."""
    rows = []
    for line in lines:
        cost = line.row.cost()
        of_seeds = {"top1": line.top1, "best_top1": line.best, "ema_top1": line.ema}
        rows.append({
            "row": line.row.name,
            "label": line.row.label,
            "network": cost.name,
            "resolution": line.row.resolution,
            "mult_adds": line.outcomes[0].mult_adds if line.outcomes else cost.mult_adds,
            "parameters": line.outcomes[0].parameters if line.outcomes else cost.parameters,
            "published": line.row.published or None,
            **{key: value and {"mean": value.mean, "deviation": value.deviation} for key, value in of_seeds.items()},
            "runs": [asdict(outcome) for outcome in line.outcomes],
        })  # fmt: skip
    return {"study": study.name, "title": study.title, "published": study.published, "rows": rows}
