"""The one training loop.

Every write is atomic, and all randomness is a function of the position in the run. So a run that is killed at any
moment and resumed ends with the same weights as an uninterrupted one (same seed, device, number of threads and
processes). With several processes (`distributed`) each runs the same loop; the first one writes and prints.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from smallcnn.data import duplicates
from smallcnn.data.loader import Batch
from smallcnn.data.order import order
from smallcnn.data.sources import Source
from smallcnn.errors import DataError, FileError
from smallcnn.system.words import several
from smallcnn.tasks.metrics import title
from smallcnn.train import budget, checkpoint, hello
from smallcnn.train.augment import Draws
from smallcnn.train.choice import Extent
from smallcnn.train.epochs import Epoch, epochs_without_gain
from smallcnn.train.feed import Feed
from smallcnn.train.learner import Learner
from smallcnn.train.log import Log, Quiet
from smallcnn.train.model_files import BEST, LAST, ModelFiles
from smallcnn.train.objective import objective
from smallcnn.train.pixels import Pixels
from smallcnn.train.progress import Progress
from smallcnn.train.ranks import Ranks
from smallcnn.train.result import Result
from smallcnn.train.settings import Settings
from smallcnn.train.stopping import asked_to_stop
from smallcnn.train.teacher import Teacher
from smallcnn.train.validation import Validation

CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_SECONDS = 60.0


class Loop:
    """The state of one run. `run` drives it; the other methods follow in the order they are called.

    Without `weights` the network starts from random weights of the recipe's seed.
    """

    def __init__(
        self,
        settings: Settings,
        weights: Mapping[str, np.ndarray] | None,
        source: Source,
        folder: Path,
        *,
        teacher: Teacher | None,
        device: torch.device,
        workers: int | None,
        ranks: Ranks,
    ) -> None:
        graph, recipe, preprocessing = settings.graph, settings.recipe, settings.preprocessing
        if settings.bfloat16 is not None:  # a resumed run computes as before, on whatever processor
            recipe = replace(recipe, precision="bfloat16" if settings.bfloat16 else "float32")
        self.source, self.recipe, self.folder, self.ranks = source, recipe, folder, ranks
        self.began, self.spent_before = time.perf_counter(), 0.0
        pixels = Pixels(preprocessing, device)
        view = preprocessing.trained_at(recipe.train_scale)
        self.progress = Progress()
        train, val = source.splits["train"], source.splits["val"]
        self.feed = Feed(train, recipe, view, workers)
        if not len(self.feed):
            raise DataError(f"no training image could be decoded; the first: {next(iter(self.feed.failed.values()))}")
        aim = objective(source.task, graph, recipe, train, teacher, device)
        self.validation = Validation(val, preprocessing, pixels, aim, 2 * recipe.batch_size, workers, ranks)
        self.duplicates = duplicates.between(train, val, workers=workers) if ranks.first else None
        self.batch_size = min(recipe.batch_size, len(self.feed))
        self.steps = len(self.feed) // self.batch_size  # drops the remainder, a different one each epoch
        self.share = ranks.share(self.batch_size, recipe.accumulate, bool(recipe.mixup or recipe.cutmix))
        if self.batch_size <= recipe.accumulate:
            raise DataError(
                f"{len(self.feed)} training images, {self.batch_size} in a batch of {recipe.accumulate} part(s), leave "
                "one to a part, and batch norm needs two: take more images or a smaller --accumulate"
            )
        size = (*view.size, graph.input_shape[2])
        self.learner = Learner(graph, weights, recipe, pixels, size, aim, ranks, settings.grids)
        self.settings = settings
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
        progress = self.progress
        stopping = False
        with self._log() as log, asked_to_stop(log, ranks.alone) as stop:
            self._say_hello(log)
            why = self._choose()
            self.files = ModelFiles(self.folder, self.settings, self.source, self.duplicates)
            self._say_how(log, resume, "as stored with the run" if resume else why)
            if not resume:
                self._save(log)
            if not self._done():
                self._judge_start(log)
            while not self._finished() and not stopping:
                if self._epoch(log, stop):
                    self._close_epoch(log)
                else:
                    self._save(log)
                stopping = any(ranks.sum([stop.is_set()]))
            if not self._finished():
                threads = torch.get_num_threads()
                log.say(f"stopped; continue with: smallcnn train --resume --out {self.folder} --threads {threads}")
        last, best = self.folder / LAST, self.folder / BEST
        with ranks.together():
            if ranks.first and not last.is_file():
                self.files.write_untrained(self.learner, progress)
        return Result(
            folder=self.folder,
            source=self.source,
            best=best if best.is_file() else last,
            last=last,
            start=progress.start,
            history=progress.history,
            goal=self.learner.objective.goal,
            finished=self._finished(),
            stopped=stopping,
        )

    def _choose(self) -> str:
        """Chooses what computes the steps, and returns the reason; a resumed run's settings leave no choice."""
        recipe = self.recipe
        extent = Extent(recipe.epochs * len(self.feed), max(map(len, self.share)), recipe.minutes)
        choice = self.learner.choose(self.settings.compute, extent)
        self.settings = replace(self.settings, compute=choice.computation.way, bfloat16=choice.computation.bfloat16)
        return choice.reason

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
        patience, goal = self.recipe.patience, self.learner.objective.goal
        if patience and epochs_without_gain(self.progress.history, goal) >= patience:
            log.say(f"validation {title(goal)} has not improved for {patience} epochs")
            self._end_after(self._done(), log)

    def _set_mode(self) -> None:
        self.learner.set_mode(self.progress.epoch < self.recipe.head_only(self._total() / self.steps))

    def _log(self) -> Quiet:
        log = Quiet()
        with self.ranks.together():
            if self.ranks.first:
                at = self.progress
                log = Log(self.folder, self._epochs(), self.steps, at.history, self.learner.objective.goal, at.step)
        return log

    def _say_hello(self, log: Quiet) -> None:
        about = hello.of_run(self.settings, self.source, self.learner.device.type, self.ranks)
        for line in (*about, *self.source.notes, *hello.of_duplicates(self.duplicates)):
            log.say(line)
        self._note_failures(log, self.feed.failed)
        self._note_failures(log, self.validation.failed)

    def _say_how(self, log: Quiet, resume: bool, why: str) -> None:
        for line in hello.of_steps(self.settings, self.feed, self.batch_size, why, self.ranks):
            log.say(line)
        if self._finished():
            log.say(f"this run has already finished, after {several(self.progress.epoch, 'epoch')}")
        elif resume:
            log.say(f"resumed at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def _judge_start(self, log: Quiet) -> None:
        """Validates the network before its first step, if it knows the labels: training may only make it worse.

        With a penalty for sparsity it does not count, as it has not been trained to be sparse.
        """
        start, progress = self.settings.start, self.progress
        if start is None or start.new_last_layer or self.recipe.sparsity:
            return
        progress.start = self.validation.measure(self.learner.as_stored(self.learner.module))
        self._note_failures(log, self.validation.failed)
        with self.ranks.together():
            if self.ranks.first:
                self.files.write_start(self.learner, progress, progress.start)
            log.start(progress.start)

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
            log.step(epoch, progress.means(), progress.seen / progress.seconds)
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
        rows = np.split(np.arange(len(batch.indices)), np.cumsum([len(part) for part in places])[:-1])
        parts = [(rows[part], places[part]) for part in used]
        count = int(sum(counts[part] for part in used))
        step = progress.epoch * self.steps + progress.step
        sums = learner.gradients(batch, parts, count, draws, step, self.batch_size)
        if not np.isfinite(sums["loss"]):
            self.ranks.refuse(DataError(self._diverged(f"the loss became {sums['loss']}")))
        learner.update(step, self._rate(step))
        progress.add(sums | {"loss": sums["loss"] * count}, count)

    def _rate(self, step: int) -> float:
        return self.recipe.lr_at(step, self.steps, self._total())

    def _diverged(self, what: str) -> str:
        good = self.progress.history
        kept = f"; the model after epoch {len(good)} is in {self.folder / LAST}" if good else ""
        return f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; try a lower --lr{kept}"

    def _close_epoch(self, log: Quiet) -> None:
        """Validates, writes the models, and advances to the next epoch."""
        progress, ranks = self.progress, self.ranks
        if not progress.seen:
            self._gather_failures(log)
            problem = next(iter(progress.failed.values()))
            ranks.refuse(DataError(f"no training image could be decoded; the first: {problem}"))
        self._check_weights()
        learner = self.learner
        val = self.validation.measure(learner.as_stored(learner.module))
        averaged = self.validation.measure(learner.as_stored(learner.averaged)) if learner.averaged else {}
        self._note_failures(log, self.validation.failed)
        record = Epoch(
            epoch=progress.epoch + 1,
            lr=self._rate(self._done() - 1),
            train=progress.means(),
            val=val,
            averaged=averaged,
            images_per_second=progress.seen / progress.seconds,
            seconds=progress.seconds,
            seconds_waiting=progress.waited,
        )
        self._gather_failures(log)
        with ranks.together():
            if ranks.first:
                self.files.write(learner, progress, val, averaged)
        progress.close(record)
        if not self._finished():
            before = self._epochs() if progress.epoch > 1 else self.recipe.epochs
            self._fit(log)
            if self._epochs() != before:
                log.say(f"{self.recipe.minutes:g} minutes: about {self._total() / self.steps:.1f} epochs fit")
            self._lose_patience(log)
        self._save(log)
        with ranks.together():
            log.epoch(record)

    def _gather_failures(self, log: Quiet) -> None:
        """Shares the images that could not be decoded among all processes."""
        for failed in self.ranks.gather(self.progress.failed):
            self._note_failures(log, failed)

    def _note_failures(self, log: Quiet, failed: Mapping[str, str]) -> None:
        for line in self.progress.fail(failed):
            log.say(line)

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
        self._check_weights()
        self._gather_failures(log)

    def _check_weights(self) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.learner.module.parameters()):
            self.ranks.refuse(DataError(self._diverged("a weight is no longer a number")))

    def _write_checkpoint(self) -> None:
        self.saved_at, self.progress.spent = time.perf_counter(), self._spent()
        if self.ranks.first:
            path, learner = self.folder / CHECKPOINT, self.learner
            checkpoint.save(path, learner.module, learner.averaged, learner.optimizer, self.progress, self.settings)
