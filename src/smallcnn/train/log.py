"""Output of a training run: a progress bar on stderr, a JSON-lines file, TensorBoard."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from smallcnn.errors import FileError
from smallcnn.system.escape import escaped
from smallcnn.system.files import atomic
from smallcnn.tasks.metrics import title
from smallcnn.train.epochs import Epoch, Scores

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

    def step(self, epoch: int, means: Scores, rate: float) -> None:
        """Advances the bar; `means` are the loss and scores of the epoch so far."""

    def shorten(self, epochs: int, steps: int) -> None:
        """Sets a smaller number of epochs and steps; the last epoch may be partial."""

    def start(self, val: Scores) -> None:
        """Prints the validation scores before the first step."""

    def epoch(self, record: Epoch) -> None:
        """Records a finished epoch: a line on stderr, one in log.jsonl, scalars in TensorBoard. Raises FileError."""


class Log(Quiet):
    """The log of the first process. Lines not in `history` are removed from the files; `step` is within the epoch."""

    def __init__(
        self, folder: Path, epochs: int, steps_per_epoch: int, history: Sequence[Epoch], goal: str, step: int
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file, self._goal = folder / "log.jsonl", goal
        with atomic(self._file) as temporary:  # drops lines written after the checkpoint we resume from
            temporary.write_text("".join(_line(record) for record in history))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[scores]}"),
            TextColumn("{task.fields[rate]:,.0f} images/s"),
            _TimeLeft(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(
            "train", total=epochs * steps_per_epoch, completed=len(history) * steps_per_epoch + step,
            epoch=len(history) + 1, epochs=epochs, scores="", rate=0.0,
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

    def step(self, epoch: int, means: Scores, rate: float) -> None:
        """Advances the bar, if stderr is a terminal."""
        self._bar.update(self._task, advance=1, epoch=epoch + 1, scores=self._shown(means, "  "), rate=rate)

    def shorten(self, epochs: int, steps: int) -> None:
        """Moves the end of the bar."""
        self._bar.update(self._task, total=steps, epochs=epochs)

    def start(self, val: Scores) -> None:
        """Prints them, aligned with those of the epochs."""
        self.say(f"{'before training':30} val {self._shown(val)}")

    def epoch(self, record: Epoch) -> None:
        """Writes the epoch to stderr, log.jsonl and TensorBoard."""
        waited = record.seconds_waiting / max(record.seconds, 1e-9)
        self.say(
            f"epoch {record.epoch:>3}  train {self._shown(record.train)}  val {self._shown(record.val)}  "
            + (f"averaged {record.averaged[self._goal]:.1%}  " if record.averaged else "")
            + f"{record.images_per_second:,.0f} images/s  {record.seconds:.0f} s"
            + (f", {waited:.0%} spent waiting for images" if waited > _MUCH else "")
        )
        try:
            with self._file.open("a") as file:
                file.write(_line(record))
        except OSError as error:
            raise FileError(f"cannot write {self._file}: {error.strerror}") from error
        for key, value in record.to_json().items():
            self._board.add_scalar(key, value, record.epoch)

    def _shown(self, scores: Scores, gap: str = " ") -> str:
        """The loss, and the goal if it is known."""
        goal = f"{gap}{title(self._goal)} {scores[self._goal]:.1%}" if self._goal in scores else ""
        return f"loss {scores['loss']:.3f}{goal}" if scores else ""


def _line(record: Epoch) -> str:
    return json.dumps(record.to_json()) + "\n"


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
