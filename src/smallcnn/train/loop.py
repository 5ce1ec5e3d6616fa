"""The one training loop.

Every write is whole or not at all, and everything random is a function of the position in the run, so a run that is
killed at any moment and resumed ends with the same weights as one that was not (same seed, device, number of threads).
"""

import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import smallcnn
from smallcnn import artifact
from smallcnn.artifact import Artifact
from smallcnn.data.loader import Batch
from smallcnn.data.order import order
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.data.sources import Source
from smallcnn.errors import DataError
from smallcnn.graph import Graph
from smallcnn.metrics import Metrics
from smallcnn.module import GraphModule, to_module, to_weights
from smallcnn.train import checkpoint
from smallcnn.train.augment import Draws, recoloured, seed_step
from smallcnn.train.checkpoint import Progress
from smallcnn.train.compute import Way, choose, network
from smallcnn.train.device import computes_bfloat16
from smallcnn.train.ema import Average
from smallcnn.train.feed import Feed
from smallcnn.train.log import Log
from smallcnn.train.loss import cross_entropy, distillation, draw_mix, mixed
from smallcnn.train.optim import freeze_body, make_optimizer, set_rate
from smallcnn.train.recipe import Recipe
from smallcnn.train.teacher import Teacher
from smallcnn.train.validation import Pixels, Validation

CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_SECONDS = 60.0
_RATED = 2048  # pictures at most to time the loader with


@dataclass(frozen=True)
class Result:
    """A finished or interrupted run."""

    folder: Path
    data: str
    best: Path
    last: Path
    history: list[dict[str, Any]]
    finished: bool


class Loop:
    """One run's state. `run` walks through it; the methods are its steps in the order they happen.

    `weights` left out are the initial ones of the recipe's seed.
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
        *,
        teacher: Teacher | None,
        compute: Way,
        device: torch.device,
        workers: int | None,
    ) -> None:
        self.graph, self.source, self.recipe, self.folder, self.settings = graph, source, recipe, folder, settings
        self.device, self.preprocessing = device, preprocessing
        self.pixels = Pixels(preprocessing, device)
        self.module = to_module(graph, weights, seed=recipe.seed).to(device)
        self.module.to(memory_format=self.pixels.memory_format)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(recipe, graph, self.module)
        self.average = Average(self.module, recipe.ema) if recipe.ema else None
        self.teacher = teacher
        height, width = (max(1, round(side * recipe.train_scale)) for side in preprocessing.size)
        self.progress = Progress()
        self.feed = Feed(source.splits["train"], recipe, replace(preprocessing, size=(height, width)), workers)
        if not len(self.feed):
            raise DataError(f"no training picture could be decoded; the first: {next(iter(self.feed.failed.values()))}")
        self.validation = Validation(
            source.splits["val"], preprocessing, self.pixels, 2 * recipe.batch_size, workers
        )  # fmt: skip
        self.batch_size = min(recipe.batch_size, len(self.feed))
        self.steps = len(self.feed) // self.batch_size  # the rest is left out; it is another rest each epoch
        wanted = recipe.precision
        self.bfloat16 = wanted == "bfloat16" or (wanted == "auto" and computes_bfloat16(device))
        size, steps = (height, width, graph.input_shape[2]), recipe.epochs * self.steps
        choice = choose(compute, self.module, size, device, self.bfloat16, steps)
        settings["compute"], self.why = choice.way, choice.reason
        self.network = network(choice.way, self.module)
        self.saved_at = time.perf_counter()

    @property
    def averaged(self) -> GraphModule | None:
        """The module with the averaged weights, if the recipe has them."""
        return self.average.module if self.average else None

    def run(self, resume: bool) -> Result:
        """Trains from the beginning, or from the checkpoint in the folder, to the end or until asked to stop."""
        state = self.folder / CHECKPOINT
        if resume:
            self.progress = checkpoint.restore(state, self.module, self.averaged, self.optimizer)
        progress = self.progress
        with (
            Log(self.folder, self.recipe.epochs, self.steps, progress.history, progress.step) as log,
            _asked_to_stop(log) as stop,
        ):
            self._say_hello(log, resume)
            if not resume:
                self._save(state)
            while progress.epoch < self.recipe.epochs and not stop.is_set():
                if self._epoch(log, stop):
                    self._close_epoch(log)
                else:
                    self._save(state)
            if stop.is_set() and progress.epoch < self.recipe.epochs:
                log.say(f"stopped; go on with: smallcnn train --resume --out {self.folder}")
        finished = progress.epoch >= self.recipe.epochs
        last, best = self.folder / "last.safetensors", self.folder / "best.safetensors"
        if not last.is_file():
            artifact.save(self._artifact(None), last)
        return Result(
            self.folder, self.settings["source"], best if best.is_file() else last, last, progress.history, finished
        )

    def _say_hello(self, log: Log, resume: bool) -> None:
        splits = ", ".join(f"{len(split)} {name}" for name, split in self.source.splits.items())
        precision = "bfloat16 autocast" if self.bfloat16 else "float32"
        log.say(
            f"{self.graph.name}, input {'x'.join(map(str, self.graph.input_shape))}, "
            f"{len(self.source.classes)} classes; {splits} pictures; "
            f"augmentation {self.recipe.augment}; "
            f"{self.device.type}, {torch.get_num_threads()} threads, {precision}"
        )
        log.say(f"computed by {self.settings['compute']}: {self.why}")
        rate = self.feed.rate(np.arange(min(len(self.feed), _RATED)), self.batch_size)
        log.say(f"the loader alone gives {rate:,.0f} images/s")
        if start := self.settings["start"]:
            log.say(f"starts from trained weights; its last layer is {'new' if start['new_last_layer'] else 'kept'}")
        for note in self.source.notes:
            log.say(note)
        self._note_failures(log, self.feed.failed)
        self._note_failures(log, self.validation.failed)
        if self.source.ignored:
            some = ", ".join(path.name for path in self.source.ignored[:3])
            log.say(f"ignored {len(self.source.ignored)} files that are not pictures: {some}")
        if self.progress.epoch >= self.recipe.epochs:
            log.say(f"this run has already finished its {self.recipe.epochs} epochs")
        elif resume:
            log.say(f"resumed at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def _epoch(self, log: Log, stop: threading.Event) -> bool:
        """Trains from the current position to the end of the epoch; False if asked to stop before it."""
        progress, recipe = self.progress, self.recipe
        epoch = progress.epoch
        shuffled = order(self.feed.split, recipe.seed, epoch)[: self.steps * self.batch_size]
        draws = Draws(recipe, epoch, len(self.feed))
        loader = self.feed.batches(epoch, shuffled[progress.step * self.batch_size :], draws, self.batch_size)
        self._set_mode(epoch)
        started, seconds_before, waited = time.perf_counter(), progress.seconds, progress.waited
        asked = started
        for batch in loader:
            waited += time.perf_counter() - asked
            self._note_failures(log, batch.failed)
            if len(batch.labels) > 1:  # batch norm needs two
                self._step(batch, draws)
            progress.step += 1
            progress.seconds, progress.waited = seconds_before + time.perf_counter() - started, waited
            seen = max(progress.seen, 1)
            log.step(epoch, progress.loss_sum / seen, progress.correct / seen, progress.seen / progress.seconds)
            if stop.is_set() and progress.step < self.steps:
                return False
            if time.perf_counter() - self.saved_at > _CHECKPOINT_SECONDS:
                self._save(self.folder / CHECKPOINT)
            asked = time.perf_counter()
        return True

    def _set_mode(self, epoch: int) -> None:
        """What learns in this epoch, and which norms follow the batch."""
        self.module.train()
        head_only = epoch < self.recipe.head_only
        freeze_body(self.graph, self.module, head_only)
        if head_only or self.recipe.batch_norm == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def _step(self, batch: Batch, draws: Draws) -> None:
        progress, recipe = self.progress, self.recipe
        step = progress.epoch * self.steps + progress.step
        seed_step(recipe, step)
        set_rate(self.optimizer, recipe.lr_at(step, self.steps))
        images, labels, own = self._augmented(batch, draws, step)
        self.optimizer.zero_grad()
        count, total, right = len(labels), torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        size = -(-count // recipe.accumulate)
        size += size % 2  # mixed pairs stay together
        for start in range(0, count, size):
            part = slice(start, start + size)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                logits = self.network(self.pixels.normalise(images[part])).float()
            loss = self._loss(logits, images[part], labels[part], own if own is None else own[part])
            loss = loss * (len(logits) / count)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            right += (logits.argmax(1) == labels[part]).sum()
        value, correct = torch.stack([total, right]).tolist()  # one wait for the device
        if not np.isfinite(value):
            raise DataError(self._diverged(f"the loss became {value}"))
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        progress.loss_sum += value * count
        progress.correct += int(correct)
        progress.seen += count

    def _augmented(self, batch: Batch, draws: Draws, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pictures (N, C, H, W) in 0..1, labels, and the part of each picture that is its own if they are mixed."""
        labels = torch.from_numpy(batch.labels).to(self.device)
        images = self.pixels.load(batch.images)
        if self.recipe.augment == "photo" and self.recipe.jitter > 0:
            images = recoloured(images, torch.from_numpy(draws.colours(batch.indices)).to(self.device))
        mix = draw_mix(self.recipe, step, len(labels))
        if mix is None:
            return images, labels, None
        images, own = mixed(images, mix)
        return images, labels, own

    def _loss(self, logits: Tensor, images: Tensor, labels: Tensor, own: Tensor | None) -> Tensor:
        recipe = self.recipe
        loss = cross_entropy(logits, labels, own, recipe.label_smoothing)
        if self.teacher is None:
            return loss
        theirs = distillation(logits, self.teacher.logits(images), recipe)
        return torch.lerp(loss, theirs, recipe.distil_weight)

    def _diverged(self, what: str) -> str:
        good = self.progress.history
        kept = f"; the model after epoch {len(good)} is in {self.folder / 'last.safetensors'}" if good else ""
        return f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; try a lower --lr{kept}"

    def _close_epoch(self, log: Log) -> None:
        """Validates, writes the models, and moves on to the next epoch."""
        progress = self.progress
        if not progress.seen:
            raise DataError(f"no training picture could be decoded; the first: {next(iter(progress.failed.values()))}")
        seen = progress.seen
        val = self.validation.measure(self.module)
        averaged = self.validation.measure(self.averaged) if self.averaged else None
        self._note_failures(log, self.validation.failed)
        record = {
            "epoch": progress.epoch + 1,
            "lr": self.recipe.lr_at((progress.epoch + 1) * self.steps - 1, self.steps),
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
        made = [("last.safetensors", self._artifact(val))]
        if averaged:
            made.append(("last_ema.safetensors", self._artifact(averaged, averaged=True)))
        for name, model in made:
            if model.facts["val_top1"] > progress.best_top1:
                progress.best_top1 = model.facts["val_top1"]
                artifact.save(model, self.folder / "best.safetensors")
            artifact.save(model, self.folder / name)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.correct, progress.seen = 0.0, 0, 0
        progress.seconds = progress.waited = 0.0
        self._save(self.folder / CHECKPOINT)
        log.epoch(record)

    def _note_failures(self, log: Log, failed: Mapping[str, str]) -> None:
        known = set(self.progress.failed.values())
        for name, problem in failed.items():
            if name not in self.progress.failed:
                self.progress.failed[name] = problem
                if problem not in known:  # all pictures of a lost shard have the same one
                    log.say(f"skipped ({len(self.progress.failed)} so far): {problem}")
                    known.add(problem)

    def _artifact(self, val: Metrics | None, averaged: bool = False) -> Artifact:
        facts = {
            "model": self.graph.name,
            "start": self.settings["start"],
            "teacher": self.settings["teacher"],
            "recipe": self.settings["recipe"],
            "data": {
                "name": Path(self.settings["source"]).name,
                "fingerprint": self.source.fingerprint,
                "seed": self.recipe.seed,
                "val_fraction": self.recipe.val_fraction,
                "skipped": len(self.progress.failed),
            }
            | {f"{name}_images": len(split) for name, split in self.source.splits.items()},
            "epoch": self.progress.epoch + (val is not None),
            "val_top1": val and val.top1,
            "averaged": averaged,
            "device": self.device.type,
            "bfloat16": self.bfloat16,
            "versions": {
                "smallcnn": smallcnn.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        module = self.averaged if averaged and self.averaged else self.module
        return Artifact(self.graph, to_weights(module), self.source.classes, self.preprocessing, facts)

    def _save(self, path: Path) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            raise DataError(self._diverged("a weight is no longer a number"))
        checkpoint.save(path, self.module, self.averaged, self.optimizer, self.progress, self.settings)
        self.saved_at = time.perf_counter()


@contextmanager
def _asked_to_stop(log: Log) -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(_number: int, _frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        log.say("stopping after this step and a checkpoint; once more to stop at once")

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
