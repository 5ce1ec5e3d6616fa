"""Output of a training run: a progress bar on stderr, a JSON-lines file, TensorBoard."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from smallcnn.errors import FileError
from smallcnn.system.escape import escaped
from smallcnn.system.files import atomic

_MUCH = 0.05  # share of the time spent waiting for images that is worth reporting


class Quiet:
    """A log that writes nothing, for every process but the first.

    Use as a context manager. Call `step` after every step, `epoch` after every epoch, `say` for a line to the user.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """Prints one line above the bar."""

    def step(self, epoch: int, loss: float, top1: float, rate: float) -> None:
        """Advances the bar."""

    def shorten(self, epochs: int, steps: int) -> None:
        """Sets a smaller number of epochs and steps; the last epoch may be partial."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Records a finished epoch: a line on stderr, one in log.jsonl, scalars in TensorBoard. Raises FileError."""


class Log(Quiet):
    """The log of the first process. Lines not in `history` are removed from the files; `step` is within the epoch."""

    def __init__(
        self, folder: Path, epochs: int, steps_per_epoch: int, history: list[dict[str, Any]], step: int
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = folder / "log.jsonl"
        with atomic(self._file) as temporary:  # drops lines written after the checkpoint we resume from
            temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]:.3f}  top-1 {task.fields[top1]:.1%}"),
            TextColumn("{task.fields[rate]:,.0f} images/s"),
            _TimeLeft(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(
            "train", total=epochs * steps_per_epoch, completed=len(history) * steps_per_epoch + step,
            epoch=len(history) + 1, epochs=epochs, loss=0.0, top1=0.0, rate=0.0,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._board.close()

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        self._console.print(escaped(line), highlight=False, markup=False, soft_wrap=True)

    def step(self, epoch: int, loss: float, top1: float, rate: float) -> None:
        """Advances the bar, if stderr is a terminal."""
        self._bar.update(self._task, advance=1, epoch=epoch + 1, loss=loss, top1=top1, rate=rate)

    def shorten(self, epochs: int, steps: int) -> None:
        """Moves the end of the bar."""
        self._bar.update(self._task, total=steps, epochs=epochs)

    def epoch(self, record: dict[str, Any]) -> None:
        """Writes the epoch to stderr, log.jsonl and TensorBoard."""
        waited = record["seconds_waiting_for_pictures"] / max(record["seconds"], 1e-9)
        self.say(
            f"epoch {record['epoch']:>3}  train loss {record['train_loss']:.3f} top-1 {record['train_top1']:.1%}  "
            f"val loss {record['val_loss']:.3f} top-1 {record['val_top1']:.1%}  "
            + (f"averaged {record['ema_val_top1']:.1%}  " if "ema_val_top1" in record else "")
            + f"{record['images_per_second']:,.0f} images/s  {record['seconds']:.0f} s"
            + (f", {waited:.0%} spent waiting for images" if waited > _MUCH else "")
        )
        try:
            with self._file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FileError(f"cannot write {self._file}: {error.strerror}") from error
        for key, value in record.items():
            self._board.add_scalar(key, value, record["epoch"])


class _TimeLeft(ProgressColumn):
    """Time left, estimated from this session's steps only: a resumed run ignores those done before."""

    def __init__(self) -> None:
        super().__init__()
        self._start: tuple[float, float] | None = None

    def render(self, task: Any) -> Text:
        if self._start is None:
            self._start = (time.monotonic(), task.completed)
        done = task.completed - self._start[1]
        if done < 2:
            return Text("-:--:-- left")
        seconds = (time.monotonic() - self._start[0]) / done * (task.total - task.completed)
        return Text(f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} left")
