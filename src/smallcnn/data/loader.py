"""Batches of preprocessed images, decoded ahead by threads.

Threads suffice, because Pillow decodes and resizes without holding the GIL. There are no processes to start or clean
up, and evaluation needs no torch. The batches and their order do not depend on the number of threads.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np

from smallcnn.data.split import Split
from smallcnn.data.targets import Boxes, Targets
from smallcnn.errors import DataError, ImageError
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen
from smallcnn.image.resample import Prepared
from smallcnn.system.cpu import usable_cores

_Result = TypeVar("_Result")

_BATCH = 16
_TOGETHER = 8  # images per task; passing 32x32 arrays one by one cost as much as preprocessing them


@dataclass(frozen=True)
class Batch:
    """uint8 images (N, H, W, C), their targets, indices (N,), and decoding failures as name -> message.

    `look` finds `seen` when it is first asked for. If no image of a batch could be decoded, N is 0 and the other
    dimensions of `images` are arbitrary.
    """

    images: np.ndarray
    targets: Targets
    indices: np.ndarray
    failed: dict[str, str]
    look: Callable[[], list[Seen]]

    @cached_property
    def labels(self) -> np.ndarray:
        """The array of the targets, (N, ...)."""
        return self.targets.array

    @cached_property
    def seen(self) -> list[Seen]:
        """The part of its image that each input shows."""
        return self.look()

    @cached_property
    def labels_shown(self) -> np.ndarray:
        """The labels of the inputs, (N, ...): those of the images, except that positions follow the images' pixels."""
        return self.targets.as_shown(self.seen)


@dataclass(frozen=True, slots=True)
class Composed(Prepared):
    """An input made of several images, which `seen` shows whole, with its `objects`: rows of `Boxes`, in its pixels."""

    objects: np.ndarray


def prepared_batches(
    split: Split,
    preprocessing: Preprocessing,
    order: Sequence[int] | None = None,
    *,
    batch_size: int,
    workers: int | None = None,
) -> Iterator[Batch]:
    """The images of `split` as network input, in `order` if given; see `batches`."""
    return batches(
        split,
        lambda index: preprocessing.prepare(split.images[index]),
        range(len(split)) if order is None else order,
        batch_size=batch_size,
        workers=workers,
    )


def all_prepared(
    split: Split,
    preprocessing: Preprocessing,
    order: Sequence[int] | None = None,
    *,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """The images of `split`, in `order` if given, as network input at once: uint8 (N, H, W, C).

    Those that cannot be decoded are left out. `report` is called with the number of images done and their total.
    Raises DataError if none can be decoded.
    """
    total = len(split) if order is None else len(order)
    found, failed, done = [np.zeros((0, *preprocessing.size, len(preprocessing.mean)), np.uint8)], dict[str, str](), 0
    for batch in prepared_batches(split, preprocessing, order, batch_size=_BATCH, workers=workers):
        failed |= batch.failed
        if len(batch.indices):
            found.append(batch.images)
        done += len(batch.indices) + len(batch.failed)
        report(done, total)
    if failed and len(found) == 1:
        raise DataError(f"none of {total} images can be decoded; first error: {next(iter(failed.values()))}")
    return np.concatenate(found)


def batches(
    split: Split,
    prepare: Callable[[int], Prepared],
    order: Sequence[int],
    *,
    batch_size: int,
    workers: int | None,
    ahead: int = 3,
) -> Iterator[Batch]:
    """The images of `split` in `order`, `batch_size` at a time; those for which `prepare` fails are dropped."""
    for indices, results in in_threads(prepare, order, batch_size=batch_size, workers=workers, ahead=ahead):
        yield _collect(split, indices, results)


def in_threads(
    work: Callable[[int], _Result], order: Sequence[int], *, batch_size: int, workers: int | None, ahead: int = 3
) -> Iterator[tuple[Sequence[int], list[_Result | ImageError]]]:
    """(indices, the result of `work` or its ImageError for each), in `order`, `batch_size` at a time.

    `workers` threads keep `ahead` batches ready; None means one per usable core, at most eight.
    """
    chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    pool = ThreadPoolExecutor(workers or min(usable_cores(), 8), thread_name_prefix="decode")
    waiting: deque[tuple[Sequence[int], list[Future[list[_Result | ImageError]]]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, ahead + 1 - len(waiting)):
                tasks = [chunk[start : start + _TOGETHER] for start in range(0, len(chunk), _TOGETHER)]
                waiting.append((chunk, [pool.submit(_each, work, task) for task in tasks]))
            if not waiting:
                return
            chunk, futures = waiting.popleft()
            yield chunk, [result for future in futures for result in future.result()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def rate(found: Iterable[Batch], seconds: float) -> float:
    """Images per second of a loader on its own, measured for at most about `seconds`."""
    started = time.perf_counter()
    done = 0
    for batch in found:
        done += len(batch.indices) + len(batch.failed)
        if time.perf_counter() - started > seconds:
            break
    return done / (time.perf_counter() - started)


def _each(work: Callable[[int], _Result], indices: Sequence[int]) -> list[_Result | ImageError]:
    results: list[_Result | ImageError] = []
    for index in indices:
        try:
            results.append(work(int(index)))
        except ImageError as error:
            results.append(error)
    return results


def _collect(split: Split, indices: Sequence[int], results: Sequence[Prepared | ImageError]) -> Batch:
    good: list[Prepared] = []
    kept, failed = [], {}
    for index, result in zip(indices, results, strict=True):
        if isinstance(result, ImageError):
            failed[split.names[index]] = str(result)
        else:
            good.append(result)
            kept.append(int(index))
    images = np.stack([one.pixels for one in good]) if good else np.zeros((0, 1, 1, 1), np.uint8)
    seen = [one.seen for one in good]  # the lambda must not keep the pixels
    targets = split.targets.take(kept)
    if isinstance(targets, Boxes) and any(isinstance(one, Composed) for one in good):
        pairs = zip(good, targets.each(), strict=True)
        targets = Boxes.of([one.objects if isinstance(one, Composed) else rows for one, rows in pairs])
    return Batch(images, targets, np.array(kept, np.int64), failed, lambda: seen)
