"""Finds the steps that bring a network within limits of bytes and time, by successive halving.

Every combination of `plans` is made without training and judged. The best four are made again with a little training,
and the best two of these with all of it, one after the other, until one is as accurate as required (Jamieson and
Talwalkar 2016, arXiv 1502.07943). If the best loses little enough without training, it is taken at once. Trials are
judged on the validation split; the test split, if there is one, judges only what is written.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from smallcnn.compress.budget import Budget, Limits, spelled_ms
from smallcnn.compress.pipeline import Compressed, Step, concluded, means, opened, over
from smallcnn.compress.plans import Plan, plans
from smallcnn.compress.pruning import Prune
from smallcnn.compress.sharing import Fit, LowRank
from smallcnn.compress.workshop import Say, Workshop
from smallcnn.data.sources import Data
from smallcnn.errors import AccuracyError, AnswerError, CompileError, DataError, GraphError
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.system.files import write
from smallcnn.system.words import several

_KEPT = (4, 2)
"""Plans that are left after the trials without training, and after those with a little."""
_LITTLE = 8
"""The trials with training have one `_LITTLE`th of the epochs, at least one."""
_TRIALS = "trials.json"
_UNMADE = (DataError, GraphError, CompileError, AnswerError)
"""What steps raise that cannot be taken, and networks whose answers are no numbers."""


@dataclass(frozen=True)
class Trial:
    """A combination made with `epochs` of training after each step, and what came out.

    `milliseconds` are measured, None without a limit of time. `problem` says which limit it exceeds, or why it could
    not be made; in the latter case the figures are None.
    """

    plan: str
    epochs: int
    score: float | None = None
    bytes: int | None = None
    milliseconds: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Searched:
    """What was chosen and made, within which limits, every trial, and the reason for the choice in words.

    `judged` is the number of images that judged the trials, `part` the split they are from.
    """

    compressed: Compressed
    limits: Limits
    trials: tuple[Trial, ...]
    chosen: str
    reason: str
    judged: int
    part: str


def search(
    file: str | Path | Model,
    data: Data,
    out: str | Path,
    *,
    size: int | None = None,
    latency: Budget | None = None,
    prune: Prune | None = None,
    root: str | Path | None = None,
    max_drop: float = 1.0,
    anyway: bool = False,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    say: Say = lambda line: None,
) -> Searched:
    """Searches steps after which a model file has at most `size` bytes and an image takes at most a `latency`.

    `latency` is measured, compiled for one thread of this machine; a relative one is a share of the original's. `prune`
    has the settings of pruning and the epochs of every step; its budget is not used. If the model is within the limits
    once it is packed, that is all that is done. The rest is as for `pipeline.compress`: what is written, and if it may
    be, what is kept in `folder`, and how a search resumes from it.

    Raises AccuracyError, without writing unless `anyway`, if no combination is within the limits and loses at most
    `max_drop` points. Raises DataError if a file that is not packed is within the limits or nothing else is,
    MissingExtra if time is limited and there is no compiler.
    """
    prune = prune or Prune(budget=Budget("mult_adds", 0.5, relative=True))
    asked = {"size": size, "latency": latency and asdict(latency), "prune": {**asdict(prune), "budget": None}}
    place = means(out, folder, seed=seed, device=device, threads=threads, workers=workers, say=say)
    with opened(file, data, out, place, root=root, asked={"search": asked}, trains=True) as shop:
        limits = Limits(size, _milliseconds(latency, shop))
        if over(shop.original, limits, shop):
            found = _Search(shop, limits, prune, max_drop).run()
        elif size is not None and len(store.content(shop.original)) > size:
            found = _packed(shop, limits)
        else:
            if folder is None:
                shutil.rmtree(place.folder)
            raise DataError(f"{shop.original.graph.name} is within {limits}; there is nothing to do")
    if (problem := found.compressed.problem(max_drop, limits, shop)) and not anyway:
        raise AccuracyError(
            f"no combination of {len({trial.plan for trial in found.trials})} within {limits} is accurate enough; the "
            f"best, {found.chosen}: {problem}; try more --fine-tune epochs, a larger budget or --max-drop; --anyway "
            "writes it all the same"
        )
    store.save(found.compressed.model, out, packed=True)
    if folder is None:
        shutil.rmtree(place.folder)
    return found


def _milliseconds(latency: Budget | None, shop: Workshop) -> float | None:
    if latency is None:
        return None
    return latency.amount * shop.clock.milliseconds(shop.original) if latency.relative else latency.amount


def _packed(shop: Workshop, limits: Limits) -> Searched:
    """The original as it is, in a packed file."""
    made = concluded(shop.original, (), shop, limits)
    return Searched(made, limits, (), "packed", "its file is packed, which changes no weight", shop.judged, shop.part)


class _Search:
    """One search. Results of trials are kept in a file, those of their steps in folders, one within the other."""

    def __init__(self, shop: Workshop, limits: Limits, prune: Prune, max_drop: float) -> None:
        self._limits, self._prune, self._max_drop = limits, prune, max_drop
        self._say = shop.means.say
        apart = shop.part == "test" and "val" in shop.source.splits
        self._aside = shop.branch("trials", part="val" if apart else None, say=lambda line: None)
        self._final = shop if apart else shop.branch("trials")
        self._plans = plans(shop, limits, prune)
        self._file = shop.means.folder / _TRIALS
        self._trials: dict[str, Trial] = {}
        with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):  # none; damaged, or of another version
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            self._trials = {key: Trial(**record) for key, record in stored.items()}

    def run(self) -> Searched:
        """The first result that is good enough, else the most accurate. Raises DataError if none is within limits."""
        standing, reason = self._plans, ""
        for epochs, kept in self._rungs():
            good = self._judged(standing, epochs)
            standing = [plan for _, plan in good[:kept]]
            reason = f"after {several(epochs, 'epoch')} of training each: {_said([trial for trial, _ in good[:kept]])}"
            lost = 100 * (self._aside.rows[0].score - (good[0][0].score or 0.0))
            if not epochs and lost <= self._max_drop and self._accepted(found := self._made(standing[0], epochs)):
                return self._chosen(found, standing[0], f"it needs no training; {reason}")
        results, problems = [], []
        for plan in standing:
            try:
                results.append((self._made(plan, self._prune.epochs), plan))
            except _UNMADE as error:  # its trial had one round and less training
                problems.append(f"{plan.name}: {error}")
                self._say(problems[-1])
                continue
            if self._accepted(results[-1][0]):
                break
        if not results:
            raise DataError(f"no combination is within {self._limits}: {'; '.join(problems)}")
        found, plan = min(results, key=lambda one: (not self._accepted(one[0]), one[0].drop))
        return self._chosen(found, plan, reason)

    def _rungs(self) -> list[tuple[int, int]]:
        """Epochs of the trials, and how many plans are left after them."""
        little = max(1, self._prune.epochs // _LITTLE)
        return list(zip((0, little) if self._prune.epochs else (0,), _KEPT, strict=False))

    def _judged(self, standing: Sequence[Plan], epochs: int) -> list[tuple[Trial, Plan]]:
        """The trials that are within the limits, with their plans, the most accurate first, the smaller if equal."""
        of = len(standing)
        ran = [(self._tried(plan, epochs, f"{number} of {of}"), plan) for number, plan in enumerate(standing, 1)]
        good = [one for one in ran if one[0].problem is None]
        if not good:
            problems = "; ".join(f"{trial.plan}: {trial.problem}" for trial, _ in ran[:3])
            raise DataError(f"no combination is within {self._limits}: {problems}")
        return sorted(good, key=lambda one: (-(one[0].score or 0.0), one[0].bytes))

    def _tried(self, plan: Plan, epochs: int, number: str) -> Trial:
        """The trial of a plan, made now unless it was before."""
        key = f"{plan.name}, {epochs} epochs"
        if key not in self._trials:
            self._trials[key] = self._trial(plan, epochs)
            records = {key: asdict(trial) for key, trial in self._trials.items()}
            write(self._file, json.dumps(records, indent=1).encode())
        trial = self._trials[key]
        self._say(f"trial {number}, {_said([trial])}")
        return trial

    def _trial(self, plan: Plan, epochs: int) -> Trial:
        try:
            made, shop = _after(_with(plan.steps, epochs, rounds=1), self._aside)
            problem = over(made, self._limits, shop)
        except _UNMADE as error:
            return Trial(plan.name, epochs, problem=str(error))
        last = shop.report()[-1]
        return Trial(plan.name, epochs, last.score, last.bytes, last.measured_milliseconds, problem)

    def _made(self, plan: Plan, epochs: int) -> Compressed:
        """The result of a plan, judged by the split that judges what is written."""
        self._say(f"making {plan.name}, with {several(epochs, 'epoch')} of training")
        steps = _with(plan.steps, epochs, self._prune.rounds if epochs else 1)
        made, shop = _after(steps, self._final)
        return concluded(made, steps, shop, self._limits)

    def _accepted(self, found: Compressed) -> bool:
        return found.problem(self._max_drop, self._limits, self._final) is None

    def _chosen(self, found: Compressed, plan: Plan, reason: str) -> Searched:
        trials, aside = tuple(self._trials.values()), self._aside
        return Searched(found, self._limits, trials, plan.name, reason, aside.judged, aside.part)


def _after(steps: Sequence[Step], shop: Workshop) -> tuple[Model, Workshop]:
    """The original after the steps, and the workshop with their rows; plans share the results of equal first steps."""
    model = shop.original
    for step in steps:
        settings = sha256(json.dumps(asdict(step), sort_keys=True).encode()).hexdigest()[:8]
        shop = shop.branch(f"{step.kind}-{settings}")
        model = step.apply(model, shop)
    return model, shop


def _with(steps: Sequence[Step], epochs: int, rounds: int | None) -> list[Step]:
    """The steps with so many epochs of training each, and pruning in so many rounds."""
    changed: list[Step] = []
    for step in steps:
        if isinstance(step, Prune):
            changed.append(replace(step, epochs=epochs, rounds=rounds))
        else:
            changed.append(replace(step, epochs=epochs) if isinstance(step, Fit | LowRank) else step)
    return changed


def _said(trials: Sequence[Trial]) -> str:
    """The trials in words."""
    return "; ".join(
        f"{trial.plan}: {trial.problem or f'{trial.score:.2%}, {trial.bytes:,} bytes'}"
        + (f", {spelled_ms(trial.milliseconds)}" if trial.milliseconds and not trial.problem else "")
        for trial in trials
    )
