"""The result of a run, finished or interrupted."""

from dataclasses import dataclass
from pathlib import Path

from smallcnn.data.sources import Source
from smallcnn.train.epochs import Epoch, Scores


@dataclass(frozen=True)
class Result:
    """A finished or interrupted run; `stopped` is true if it was asked to stop, even during its last step.

    `goal` is the validation score that `best` is best in. `start` has the scores before the first step, or
    nothing if the network did not know the labels.
    """

    folder: Path
    source: Source
    best: Path
    last: Path
    start: Scores
    history: list[Epoch]
    goal: str
    finished: bool
    stopped: bool
