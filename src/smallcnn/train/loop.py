"""The one training loop.

Every write is atomic, and all randomness is a function of the position in the run. So a run that is killed at any
moment and resumed ends with the same weights as an uninterrupted one (same seed, device, number of threads and
processes). With several processes (`distributed`) each runs the same loop; the first one writes and prints.
"""

import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import smallcnn
from smallcnn.data import duplicates
from smallcnn.data.loader import Batch
from smallcnn.data.order import order
from smallcnn.data.sources import Source
from smallcnn.errors import DataError, FileError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.module import to_weights
from smallcnn.system import places
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import Metrics
from smallcnn.train import budget, checkpoint
from smallcnn.train.augment import Draws
from smallcnn.train.checkpoint import Progress
from smallcnn.train.compute import Choice, Way
from smallcnn.train.feed import Feed
from smallcnn.train.learner import Learner
from smallcnn.train.log import Log, Quiet
from smallcnn.train.loss import class_weights
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe
from smallcnn.train.stopping import asked_to_stop
from smallcnn.train.teacher import Teacher
from smallcnn.train.validation import Pixels, Validation

CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_SECONDS = 60.0
_NAMED = 10  # classes to name at the start
_MOST_USED = 0.9  # share of the images in whole batches, below which a note says so
_RATED = 2048  # images to time the loader with, at most


@dataclass(frozen=True)
class Result:
    """A finished or interrupted run; `stopped` is true if it was asked to stop, even during its last step."""

    folder: Path
    data: str
    root: str | None
    best: Path
    last: Path
    history: list[dict[str, Any]]
    finished: bool
    stopped: bool


class Loop:
    """The state of one run. `run` drives it; the other methods follow in the order they are called.

    Without `weights` the network starts from random weights of the recipe's seed.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray] | None,
        preprocessing: Preprocessing,
        source: Source,
        recipe: Recipe,
        folder: Path,
        settings: dict[str, Any],
        data: str,
        *,
        teacher: Teacher | None,
        compute: Way,
        device: torch.device,
        workers: int | None,
        ranks: Ranks,
    ) -> None:
        self.graph, self.source, self.recipe, self.folder, self.settings = graph, source, recipe, folder, settings
        self.data = data
        self.device, self.preprocessing, self.ranks = device, preprocessing, ranks
        self.began, self.spent_before = time.perf_counter(), 0.0
        pixels = Pixels(preprocessing, device)
        view = preprocessing.trained_at(recipe.train_scale)
        height, width = view.size
        self.progress = Progress()
        self.feed = Feed(source.splits["train"], recipe, view, workers)
        if not len(self.feed):
            raise DataError(f"no training image could be decoded; the first: {next(iter(self.feed.failed.values()))}")
        self.validation = Validation(
            source.splits["val"], preprocessing, pixels, 2 * recipe.batch_size, workers, ranks
        )  # fmt: skip
        self.duplicates = (
            duplicates.between(source.splits["train"], source.splits["val"], workers=workers) if ranks.first else None
        )
        self.batch_size = min(recipe.batch_size, len(self.feed))
        self.steps = len(self.feed) // self.batch_size  # drops the remainder, a different one each epoch
        self.share = ranks.share(self.batch_size, recipe.accumulate, bool(recipe.mixup or recipe.cutmix))
        size = (height, width, graph.input_shape[2])
        weighted = class_weights(source.splits["train"].labels, len(source.classes)) if recipe.balance else None
        self.learner = Learner(graph, weights, recipe, pixels, size, teacher, weighted, ranks)
        choice = Choice("torch", "several processes, which share batch-norm statistics")
        if ranks.alone:
            choice = self.learner.choose(compute, recipe.epochs * len(self.feed))
        settings["compute"], self.why = choice.way, choice.reason
        settings["bfloat16"] = self.learner.bfloat16
        self.saved_at, self.behind = time.perf_counter(), False  # behind: the last checkpoint could not be written

    def run(self, resume: bool) -> Result:
        """Trains from the beginning, or from the checkpoint in the folder, to the end or until asked to stop."""
        ranks = self.ranks
        if len(set(ranks.gather((self.source.fingerprint, len(self.feed))))) > 1:
            ranks.refuse(DataError("the processes see different images; every machine needs the same, all readable"))
        if resume:
            with ranks.copied(self.folder / CHECKPOINT) as state, ranks.together():
                learner = self.learner
                self.progress = checkpoint.restore(state, learner.module, learner.averaged, learner.optimizer)
                self.spent_before = self.progress.spent
                if self.progress.step > self.steps or self.progress.total > self.recipe.epochs * self.steps:
                    raise FileError(f"{self.folder / CHECKPOINT}: its position is not one in this run")
        if not ranks.alone:
            self.learner.join()
        progress = self.progress
        stopping = False
        with self._log() as log, asked_to_stop(log, ranks.alone) as stop:
            self._say_hello(log, resume)
            if not resume:
                self._save(log)
            while not self._finished() and not stopping:
                if self._epoch(log, stop):
                    self._close_epoch(log)
                else:
                    self._save(log)
                stopping = any(ranks.sum([stop.is_set()]))
            if not self._finished():
                threads = torch.get_num_threads()
                log.say(f"stopped; continue with: smallcnn train --resume --out {self.folder} --threads {threads}")
        last, best = self.folder / "last.safetensors", self.folder / "best.safetensors"
        with ranks.together():
            if ranks.first and not last.is_file():
                store.save(self._artifact(None), last)
        return Result(
            folder=self.folder,
            data=self.data,
            root=self.settings["root"],
            best=best if best.is_file() else last,
            last=last,
            history=progress.history,
            finished=self._finished(),
            stopped=stopping,
        )

    def _done(self) -> int:
        """Steps since the beginning of the run."""
        return self.progress.epoch * self.steps + self.progress.step

    def _total(self) -> int:
        return self.progress.total or self.recipe.epochs * self.steps

    def _epochs(self) -> int:
        """Epochs of the whole run; the last one may be partial."""
        return -(-self._total() // self.steps)

    def _finished(self) -> bool:
        return self._done() >= self._total()

    def _spent(self) -> float:
        """Seconds spent on this run, including the time before it was resumed."""
        return self.spent_before + time.perf_counter() - self.began

    def _end_after(self, total: int, log: Quiet) -> None:
        """Changes the number of steps of the run."""
        self.progress.total = total
        log.shorten(self._epochs(), total)
        self._set_mode()

    def _fit(self, log: Quiet) -> None:
        """Sets the number of steps that fit into the run's minutes at the speed so far."""
        if self.recipe.minutes:
            most = self.recipe.epochs * self.steps
            fitting = budget.fitting(self._done(), self._spent(), self.recipe.minutes, most)
            self._end_after(self.ranks.from_first(fitting), log)

    def _lose_patience(self, log: Quiet) -> None:
        """Ends the run if too many epochs passed without a gain."""
        patience = self.recipe.patience
        if patience and budget.epochs_without_gain(self.progress.history) >= patience:
            log.say(f"validation top-1 has not improved for {patience} epochs")
            self._end_after(self._done(), log)

    def _set_mode(self) -> None:
        self.learner.set_mode(self.progress.epoch < self.recipe.head_only(self._total() / self.steps))

    def _log(self) -> Quiet:
        log = Quiet()
        with self.ranks.together():
            if self.ranks.first:
                at = self.progress
                log = Log(self.folder, self._epochs(), self.steps, at.history, at.step)
        return log

    def _say_hello(self, log: Quiet, resume: bool) -> None:
        splits = ", ".join(f"{len(split)} {name}" for name, split in self.source.splits.items())
        precision = "bfloat16 autocast" if self.learner.bfloat16 else "float32"
        log.say(
            f"{self.graph.name}, input {'x'.join(map(str, self.graph.input_shape))}, "
            f"{len(self.source.classes)} classes; {splits} images; "
            f"augmentation {self.recipe.augment}; "
            f"{self.device.type}, "
            + ("" if self.ranks.alone else f"{self.ranks.count} processes of ")
            + f"{torch.get_num_threads()} threads, {precision}"
        )
        log.say(
            f"classes: {', '.join(self.source.classes[:_NAMED])}"
            + (", ..." if len(self.source.classes) > _NAMED else "")
        )
        used, given = self.steps * self.batch_size, len(self.feed)
        if used < _MOST_USED * given:
            log.say(f"note: an epoch uses {used} of {given} images; with a smaller --batch-size it uses more")
        why = "as stored with the run" if resume else self.why  # a resumed run does not choose again
        log.say(f"computed by {self.settings['compute']}: {why}")
        if self.ranks.first:
            rate = self.feed.rate(np.arange(min(len(self.feed), _RATED)), self.batch_size)
            log.say(f"loading alone: {rate:,.0f} images/s" + ("" if self.ranks.alone else " per process"))
        if start := self.settings["start"]:
            log.say(f"starts from trained weights; its last layer is {'new' if start['new_last_layer'] else 'kept'}")
        for note in self.source.notes:
            log.say(note)
        if self.duplicates and (line := self.duplicates.line()):
            log.say(f"note: {line}")
        self._note_failures(log, self.feed.failed)
        self._note_failures(log, self.validation.failed)
        if self._finished():
            log.say(f"this run has already finished, after {self.progress.epoch} epochs")
        elif resume:
            log.say(f"resumed at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def _epoch(self, log: Quiet, stop: threading.Event) -> bool:
        """Trains from the current position to the end of the epoch; False if asked to stop before it."""
        progress, recipe = self.progress, self.recipe
        epoch = progress.epoch
        shuffled = order(self.feed.split, recipe.seed, epoch)[: self.steps * self.batch_size]
        ours = shuffled.reshape(self.steps, self.batch_size)[:, np.concatenate(self.share)]
        draws = Draws(recipe, epoch, len(self.feed))
        loader = self.feed.batches(epoch, ours[progress.step :].ravel(), draws, ours.shape[1])
        self._set_mode()
        started, seconds_before, waited = time.perf_counter(), progress.seconds, progress.waited
        requested = started
        for batch in loader:
            waited += time.perf_counter() - requested
            self._note_failures(log, batch.failed)
            places = self._places(batch, ours[progress.step])
            due = self.ranks.first and time.perf_counter() - self.saved_at > _CHECKPOINT_SECONDS
            over = self.ranks.first and recipe.minutes is not None and self._spent() > 60 * recipe.minutes
            *counts, stopping, saving, late = self.ranks.sum([*map(len, places), stop.is_set(), due, over])
            if stopping:
                return False
            if late and self._done():
                self._end_after(self._done(), log)
            if self._finished():
                return progress.step > 0
            if saving:
                self._save_meanwhile(log)
            self._step(batch, places, counts, draws)
            progress.step += 1
            if epoch == 0 and budget.is_due(progress.step):
                self._fit(log)
            progress.seconds, progress.waited = seconds_before + time.perf_counter() - started, waited
            seen = max(progress.seen, 1)
            log.step(epoch, progress.loss_sum / seen, progress.correct / seen, progress.seen / progress.seconds)
            requested = time.perf_counter()
        return True

    def _places(self, batch: Batch, wanted: np.ndarray) -> list[np.ndarray]:
        """This process's places in the global batch, per micro-batch; `wanted` includes images that failed."""
        decoded = np.isin(wanted, batch.indices)
        ends = np.cumsum([len(share) for share in self.share])[:-1]
        return [share[there] for share, there in zip(self.share, np.split(decoded, ends), strict=True)]

    def _step(self, batch: Batch, places: list[np.ndarray], counts: list[float], draws: Draws) -> None:
        """Runs one step, given the `places` of this process's images and all processes' counts per micro-batch."""
        progress, learner = self.progress, self.learner
        used = [part for part, count in enumerate(counts) if count > 1]  # batch norm needs two
        if not used:
            return
        rows = np.split(np.arange(len(batch.labels)), np.cumsum([len(part) for part in places])[:-1])
        parts = [(rows[part], places[part]) for part in used]
        count = int(sum(counts[part] for part in used))
        step = progress.epoch * self.steps + progress.step
        loss, correct = learner.gradients(batch, parts, count, draws, step, self.batch_size)
        if not np.isfinite(loss):
            self.ranks.refuse(DataError(self._diverged(f"the loss became {loss}")))
        learner.update(step, self._rate(step))
        progress.loss_sum += loss * count
        progress.correct += correct
        progress.seen += count

    def _rate(self, step: int) -> float:
        return self.recipe.lr_at(step, self.steps, self._total())

    def _diverged(self, what: str) -> str:
        good = self.progress.history
        kept = f"; the model after epoch {len(good)} is in {self.folder / 'last.safetensors'}" if good else ""
        return f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; try a lower --lr{kept}"

    def _close_epoch(self, log: Quiet) -> None:
        """Validates, writes the models, and advances to the next epoch."""
        progress, ranks = self.progress, self.ranks
        if not progress.seen:
            self._gather_failures(log)
            problem = next(iter(progress.failed.values()))
            ranks.refuse(DataError(f"no training image could be decoded; the first: {problem}"))
        seen = progress.seen
        learner = self.learner
        val = self.validation.measure(learner.module)
        averaged = self.validation.measure(learner.averaged) if learner.averaged else None
        self._note_failures(log, self.validation.failed)
        record = {
            "epoch": progress.epoch + 1,
            "lr": self._rate(self._done() - 1),
            "train_loss": progress.loss_sum / seen,
            "train_top1": progress.correct / seen,
            "val_loss": val.loss,
            "val_top1": val.top1,
            "val_top5": val.top5,
        }
        if averaged:
            record |= {"ema_val_loss": averaged.loss, "ema_val_top1": averaged.top1, "ema_val_top5": averaged.top5}
        record |= {
            "images_per_second": seen / progress.seconds,
            "seconds": progress.seconds,
            "seconds_waiting_for_pictures": progress.waited,
        }
        progress.history.append(record)
        self._gather_failures(log)
        with ranks.together():
            if ranks.first:
                self._write_models(val, averaged)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.correct, progress.seen = 0.0, 0, 0
        progress.seconds = progress.waited = 0.0
        if not self._finished():
            before = self._epochs() if progress.epoch > 1 else self.recipe.epochs
            self._fit(log)
            if self._epochs() != before:
                log.say(f"{self.recipe.minutes:g} minutes: about {self._total() / self.steps:.1f} epochs fit")
            self._lose_patience(log)
        self._save(log)
        with ranks.together():
            log.epoch(record)

    def _write_models(self, val: Metrics, averaged: Metrics | None) -> None:
        made = [("last.safetensors", self._artifact(val))]
        if averaged:
            made.append(("last_ema.safetensors", self._artifact(averaged, averaged=True)))
        for name, model in made:
            if model.facts["val_top1"] > self.progress.best_top1:
                self.progress.best_top1 = model.facts["val_top1"]
                store.save(model, self.folder / "best.safetensors")
            store.save(model, self.folder / name)

    def _gather_failures(self, log: Quiet) -> None:
        """Shares the images that could not be decoded among all processes."""
        for failed in self.ranks.gather(self.progress.failed):
            self._note_failures(log, failed)

    def _note_failures(self, log: Quiet, failed: Mapping[str, str]) -> None:
        known = set(self.progress.failed.values())
        for name, problem in failed.items():
            if name not in self.progress.failed:
                self.progress.failed[name] = problem
                if problem not in known:  # all images of a lost shard share one message
                    log.say(f"skipped ({len(self.progress.failed)} so far): {problem}")
                    known.add(problem)

    def _artifact(self, val: Metrics | None, averaged: bool = False) -> Model:
        facts = {
            "model": self.graph.name,
            "start": self.settings["start"],
            "teacher": self.settings["teacher"],
            "recipe": self.settings["recipe"],
            "data": {
                "name": places.name(self.settings["source"] or self.data),
                "fingerprint": self.source.fingerprint,
                "seed": self.recipe.seed,
                "val_fraction": self.recipe.val_fraction,
                "skipped": len(self.progress.failed),
                "left_out": self.source.left_out.as_dict(),
            }
            | ({"cut": self.source.cut} if self.source.cut else {})
            | ({"near_duplicates": self.duplicates.as_dict()} if self.duplicates else {})
            | {f"{name}_images": len(split) for name, split in self.source.splits.items()},
            "epoch": self.progress.epoch + (val is not None),
            "val_top1": val and val.top1,
            "averaged": averaged,
            "device": self.device.type,
            "bfloat16": self.learner.bfloat16,
            "versions": {
                "smallcnn": smallcnn.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        module = self.learner.averaged if averaged and self.learner.averaged else self.learner.module
        return Model(self.graph, to_weights(module), Classification(self.source.classes), self.preprocessing, facts)

    def _save(self, log: Quiet) -> None:
        """Writes the checkpoint."""
        self._make_ready(log)
        with self.ranks.together():
            self._write_checkpoint()

    def _save_meanwhile(self, log: Quiet) -> None:
        """Writes a checkpoint between epochs; a full disk does not stop the run, so there is time to make room."""
        self._make_ready(log)
        try:
            self._write_checkpoint()
            self.behind = False
        except FileError as error:
            if not self.behind:
                log.say(f"{error}; training continues and retries every minute; the last checkpoint is intact")
            self.behind = True

    def _make_ready(self, log: Quiet) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.learner.module.parameters()):
            self.ranks.refuse(DataError(self._diverged("a weight is no longer a number")))
        self._gather_failures(log)

    def _write_checkpoint(self) -> None:
        self.saved_at, self.progress.spent = time.perf_counter(), self._spent()
        if self.ranks.first:
            path, learner = self.folder / CHECKPOINT, self.learner
            checkpoint.save(path, learner.module, learner.averaged, learner.optimizer, self.progress, self.settings)
