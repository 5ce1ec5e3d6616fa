"""The processes of one run: how they share the work, and how they agree.

All processes agree on every decision about the run (stopping, a checkpoint, an error) before acting on it, so none
waits for one that has left. A single process exchanges nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist

from smallcnn.errors import DataError, SmallcnnError
from smallcnn.train.exchange import sum_over_processes

T = TypeVar("T")

_GRACE = 1.0  # seconds for the first process to report the error; torchrun ends all as soon as one has ended


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them: the `number`th of `count`, the `local`th on its machine."""

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def share(self, batch_size: int, parts: int, pairs: bool) -> list[np.ndarray]:
        """The places in a batch that this process computes, one array per micro-batch (`parts` of them).

        A micro-batch has the same images for any number of processes. With `pairs`, places 0 and 1, 2 and 3, ... stay
        together. Raises DataError if the batch cannot be shared evenly.
        """
        unit = self.count * parts * (2 if pairs else 1)
        if not self.alone and batch_size % unit:
            why = ", ".join(
                [f"{self.count} processes"]
                + ([f"{parts} micro-batches"] if parts > 1 else [])
                + (["mixed pairs kept whole"] if pairs else [])
            )
            near = sorted({max(unit, batch_size // unit * unit), (batch_size // unit + 1) * unit})
            raise DataError(
                f"a batch of {batch_size} images cannot be shared evenly ({why}); "
                f"it must be a multiple of {unit}, such as {' or '.join(map(str, near))}"
            )
        size = -(-batch_size // parts)
        size += size % 2 if pairs else 0
        whole = [np.arange(start, min(start + size, batch_size)) for start in range(0, batch_size, size)]
        return [np.split(places, self.count)[self.number] for places in whole]

    def slice(self, length: int) -> range:
        """This process's share of `length` items, in order."""
        return range(length * self.number // self.count, length * (self.number + 1) // self.count)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        sum_over_processes(total)
        return total.tolist()

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order."""
        if self.alone:
            return [value]
        found: list[T | None] = [None] * self.count
        dist.all_gather_object(found, value)
        return cast(list[T], found)

    def from_first(self, value: T) -> T:
        """The first process's value."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def refuse(self, error: SmallcnnError) -> NoReturn:
        """Ends the run for a reason known to all processes: the first raises `error`, the others exit silently.

        Their exit code is 2, as for a user's mistake on the command line.
        """
        if self.first:
            raise error
        time.sleep(_GRACE)
        raise SystemExit(2)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends all processes if one raises inside, see `refuse`. The block must not communicate."""
        error = None
        try:
            yield
        except SmallcnnError as caught:
            if self.alone:
                raise
            error = caught
        found = self.gather(None if error is None else str(error))
        for number, text in enumerate(found):
            if text is not None:
                self.refuse(error or SmallcnnError(f"process {number}: {text}"))

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs the block in each machine's first process before the others, which then find what it fetched."""
        if self.local and not self.alone:
            dist.barrier()
        try:
            yield
        finally:
            if not self.local and not self.alone:
                dist.barrier()

    @contextmanager
    def copied(self, path: Path) -> Iterator[Path]:
        """A copy of the first process's file `path` that every process can read, on any machine."""
        content = self.from_first(path.read_bytes() if self.first and not self.alone else b"")
        if self.first:
            yield path
            return
        with TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            yield copy
