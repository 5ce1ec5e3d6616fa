"""The one training loop.

A run lives in a folder: best.safetensors and last.safetensors (models), checkpoint.safetensors (for --resume),
log.jsonl, tensorboard/. Every write is whole or not at all, and everything random is a function of the position in the
run, so a run that is killed at any moment and resumed ends with the same weights as one that was not (same seed, same
device, same number of threads).
"""

import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import smallcnn
from smallcnn import artifact, zoo
from smallcnn.artifact import Artifact
from smallcnn.data.loader import Batch, batches
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.data.sources import Source, open_source
from smallcnn.errors import DataError
from smallcnn.graph import Graph
from smallcnn.metrics import Metrics, measure
from smallcnn.module import to_module, to_weights
from smallcnn.train import checkpoint
from smallcnn.train.augment import batch_augmentation, order, prepare, seed_step
from smallcnn.train.checkpoint import Progress
from smallcnn.train.log import Log
from smallcnn.train.optim import make_optimizer
from smallcnn.train.recipe import Recipe

_CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_SECONDS = 60.0
_SMALL = 64  # pixels; up to here "auto" augments as for small pictures


@dataclass(frozen=True)
class Result:
    """A finished or interrupted run."""

    folder: Path
    data: str
    best: Path
    last: Path
    history: list[dict[str, Any]]
    finished: bool


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
    run = _Run(graph, source, recipe, folder, settings, device=torch.device(_device(device)), workers=workers)
    return run.train(resume=resume and (folder / _CHECKPOINT).is_file())


def resume(out: str | Path, *, device: str = "auto", workers: int = 2) -> Result:
    """Goes on with the run in the folder `out`, with the settings it was started with."""
    state = Path(out) / _CHECKPOINT
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
    state = folder / _CHECKPOINT
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the run folder {folder}: {error.strerror}") from error
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


def _device(name: str) -> str:
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise DataError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return False


class _Run:
    """One run's state. `train` walks through it; the methods are its steps in the order they happen."""

    def __init__(
        self,
        graph: Graph,
        source: Source,
        recipe: Recipe,
        folder: Path,
        settings: dict[str, Any],
        *,
        device: torch.device,
        workers: int,
    ) -> None:
        self.graph, self.source, self.recipe, self.folder, self.settings = graph, source, recipe, folder, settings
        self.device, self.workers = device, workers
        height, width, channels = graph.input_shape
        crop = 1.0 if recipe.augment == "small" else 0.875
        self.preprocessing = Preprocessing((height, width), (0.5,) * channels, (0.5,) * channels, crop)
        self.module = to_module(graph, seed=recipe.seed).to(device)
        if device.type != "mps":
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(recipe, graph, self.module)
        self.augmentation = batch_augmentation(recipe, self.preprocessing)
        self.progress = Progress()
        self.split = source.splits["train"]
        self.batch_size = min(recipe.batch_size, len(self.split))
        self.steps = (
            len(self.split) // self.batch_size
        )  # a last, smaller batch is left out; the order changes each epoch
        wanted = recipe.precision
        self.bfloat16 = wanted == "bfloat16" or (wanted == "auto" and _computes_bfloat16(device))
        self.failed: dict[str, str] = {}
        self.saved_at = time.monotonic()

    def train(self, resume: bool) -> Result:
        state = self.folder / _CHECKPOINT
        if resume:
            self.progress = checkpoint.restore(state, self.module, self.optimizer)
        progress = self.progress
        with (
            Log(self.folder, self.recipe.epochs, self.steps, progress.history, progress.step) as log,
            _asked_to_stop() as stop,
        ):
            self._say_hello(log, resume)
            while progress.epoch < self.recipe.epochs and not stop.is_set():
                if self._epoch(log, stop):
                    self._close_epoch(log)
                self._save(state)
            if stop.is_set() and progress.epoch < self.recipe.epochs:
                log.say(f"stopped; go on with --resume --out {self.folder}")
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
            f"{self.device.type}, {torch.get_num_threads()} threads, {precision}"
        )
        if self.source.ignored:
            some = ", ".join(path.name for path in self.source.ignored[:3])
            log.say(f"ignored {len(self.source.ignored)} files that are not pictures: {some}")
        if resume:
            log.say(f"resumed at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def _epoch(self, log: Log, stop: threading.Event) -> bool:
        """Trains from the current position to the end of the epoch; False if asked to stop before it."""
        progress, recipe, split = self.progress, self.recipe, self.split
        shuffled = order(recipe, progress.epoch, len(split))[: self.steps * self.batch_size]
        rest = shuffled[progress.step * self.batch_size :]
        epoch = progress.epoch
        loader = batches(
            split,
            lambda index: prepare(recipe, self.preprocessing, epoch, index, split.images[index]),
            rest.tolist(),
            batch_size=self.batch_size,
            workers=self.workers,
        )
        self.module.train()
        self.started, self.seen_before = time.monotonic(), progress.seen
        for batch in loader:
            self._note_failures(log, batch)
            if len(batch.labels) > 1:  # batch norm needs two
                self._step(batch)
            progress.step += 1
            seen = max(progress.seen, 1)
            rate = (progress.seen - self.seen_before) / (time.monotonic() - self.started)
            log.step(epoch, progress.loss_sum / seen, progress.correct / seen, rate)
            if stop.is_set() and progress.step < self.steps:
                return False
            if time.monotonic() - self.saved_at > _CHECKPOINT_SECONDS:
                self._save(self.folder / _CHECKPOINT)
        return True

    def _step(self, batch: Batch) -> None:
        progress, recipe = self.progress, self.recipe
        step = progress.epoch * self.steps + progress.step
        seed_step(recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr_at(step, self.steps)
        labels = torch.from_numpy(batch.labels).to(self.device)
        images = self._to_device(batch.images)
        with torch.no_grad():
            images = self._normalise(self.augmentation(images / 255))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.module(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = loss.item()
        if not np.isfinite(value):
            raise DataError(f"the loss became {value} in epoch {progress.epoch + 1}; try a lower --lr")
        progress.loss_sum += value * len(labels)
        progress.correct += int((logits.argmax(1) == labels).sum().item())
        progress.seen += len(labels)

    def _close_epoch(self, log: Log) -> None:
        """Validates, writes the models, and moves on to the next epoch."""
        progress = self.progress
        seconds = time.monotonic() - self.started
        if not progress.seen:
            raise DataError(f"no training picture could be decoded; the first: {next(iter(self.failed.values()))}")
        seen = progress.seen
        val = self._validate(log)
        record = {
            "epoch": progress.epoch + 1,
            "lr": self.recipe.lr_at((progress.epoch + 1) * self.steps - 1, self.steps),
            "train_loss": progress.loss_sum / seen,
            "train_top1": progress.correct / seen,
            "val_loss": val.loss,
            "val_top1": val.top1,
            "val_top5": val.top5,
            "images_per_second": (seen - self.seen_before) / seconds,
            "seconds": seconds,
        }
        progress.history.append(record)
        model = self._artifact(val)
        if val.top1 > progress.best_top1:
            progress.best_top1 = val.top1
            artifact.save(model, self.folder / "best.safetensors")
        artifact.save(model, self.folder / "last.safetensors")
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.correct, progress.seen = 0.0, 0, 0
        self._save(self.folder / _CHECKPOINT)
        log.epoch(record)

    @torch.inference_mode()
    def _validate(self, log: Log) -> Metrics:
        split = self.source.splits["val"]
        self.module.eval()
        loader = batches(
            split,
            lambda index: self.preprocessing.prepare(split.images[index]),
            range(len(split)),
            batch_size=2 * self.recipe.batch_size,
            workers=self.workers,
        )
        logits, labels = [], []
        for batch in loader:
            self._note_failures(log, batch)
            if len(batch.labels):
                images = self._normalise(self._to_device(batch.images) / 255)
                logits.append(self.module(images).float().cpu().numpy())
                labels.append(batch.labels)
        if not labels:
            raise DataError(f"no validation picture could be decoded; the first: {next(iter(self.failed.values()))}")
        return measure(np.concatenate(logits), np.concatenate(labels))

    def _to_device(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, C) -> float (N, C, H, W) in 0..255, channels last in memory."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()

    def _normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1 -> the network's input."""
        mean, std = (
            torch.tensor(values, device=images.device).reshape(1, -1, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def _note_failures(self, log: Log, batch: Batch) -> None:
        for name, problem in batch.failed.items():
            if name not in self.failed:
                self.failed[name] = problem
                log.say(f"skipped ({len(self.failed)} so far): {problem}")

    def _artifact(self, val: Metrics | None) -> Artifact:
        facts = {
            "model": self.graph.name,
            "recipe": self.settings["recipe"],
            "data": {
                "name": Path(self.settings["source"]).name,
                "fingerprint": self.source.fingerprint,
                "seed": self.recipe.seed,
                "val_fraction": self.recipe.val_fraction,
                "skipped": len(self.failed),
            }
            | {f"{name}_images": len(split) for name, split in self.source.splits.items()},
            "epoch": self.progress.epoch + (val is not None),
            "val_top1": val and val.top1,
            "versions": {
                "smallcnn": smallcnn.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        return Artifact(self.graph, to_weights(self.module), self.source.classes, self.preprocessing, facts)

    def _save(self, path: Path) -> None:
        checkpoint.save(path, self.module, self.optimizer, self.progress, self.settings)
        self.saved_at = time.monotonic()


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(_number: int, _frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
