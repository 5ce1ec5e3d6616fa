"""What a run says while it runs: a progress bar on stderr, a JSON-lines file, TensorBoard."""

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
from smallcnn.escape import escaped
from smallcnn.files import atomic

_MUCH = 0.05  # of the time spent waiting for images: worth a word


class Quiet:
    """Says nothing: what a run in several processes has in all but the first.

    Use as a context manager. `step` after every step, `epoch` after every epoch, `say` for a line to the user.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """One line above the bar."""

    def step(self, epoch: int, loss: float, top1: float, rate: float) -> None:
        """Moves the bar."""

    def shorten(self, epochs: int, steps: int) -> None:
        """The run has only so many epochs, the last one perhaps not whole, and steps."""

    def epoch(self, record: dict[str, Any]) -> None:
        """One finished epoch: a line on stderr, a line in log.jsonl, scalars in TensorBoard. FileError if it cannot."""


class Log(Quiet):
    """Says it. What `history` does not hold is taken back from the files, and `step` counts within the next epoch."""

    def __init__(
        self, folder: Path, epochs: int, steps_per_epoch: int, history: list[dict[str, Any]], step: int
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = folder / "log.jsonl"
        with atomic(self._file) as beside:  # lines written after the checkpoint we resume from are taken back
            beside.write_text("".join(json.dumps(record) + "\n" for record in history))
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
        """Above the bar."""
        self._console.print(escaped(line), highlight=False, markup=False, soft_wrap=True)

    def step(self, epoch: int, loss: float, top1: float, rate: float) -> None:
        """The bar, where stderr is a terminal."""
        self._bar.update(self._task, advance=1, epoch=epoch + 1, loss=loss, top1=top1, rate=rate)

    def shorten(self, epochs: int, steps: int) -> None:
        """The bar's end."""
        self._bar.update(self._task, total=steps, epochs=epochs)

    def epoch(self, record: dict[str, Any]) -> None:
        """To stderr, log.jsonl and TensorBoard."""
        waited = record["seconds_waiting_for_pictures"] / max(record["seconds"], 1e-9)
        self.say(
            f"epoch {record['epoch']:>3}  train loss {record['train_loss']:.3f} top-1 {record['train_top1']:.1%}  "
            f"val loss {record['val_loss']:.3f} top-1 {record['val_top1']:.1%}  "
            + (f"averaged {record['ema_val_top1']:.1%}  " if "ema_val_top1" in record else "")
            + f"{record['images_per_second']:,.0f} images/s  {record['seconds']:.0f} s"
            + (f", {waited:.0%} of it waiting for images" if waited > _MUCH else "")
        )
        try:
            with self._file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FileError(f"cannot write {self._file}: {error.strerror}") from error
        for key, value in record.items():
            self._board.add_scalar(key, value, record["epoch"])


class _TimeLeft(ProgressColumn):
    """Time left from the steps of this session alone, so that a resumed run does not count what it did not do."""

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
