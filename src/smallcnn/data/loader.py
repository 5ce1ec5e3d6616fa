"""Batches of preprocessed images, decoded ahead by threads.

Threads suffice, because Pillow decodes and resizes without holding the GIL. There are no processes to start or clean
up, and evaluation needs no torch. The batches and their order do not depend on the number of threads.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from smallcnn.data.split import Split
from smallcnn.errors import ImageError

Prepare = Callable[[int], np.ndarray]
"""Index of an image -> uint8 (H, W, C). Raises ImageError if it cannot be decoded."""


_TOGETHER = 8  # images per task; passing 32x32 arrays one by one cost as much as preprocessing them


@dataclass(frozen=True)
class Batch:
    """uint8 images (N, H, W, C), labels (N,), indices (N,), and decoding failures as name -> message.

    If no image of a batch could be decoded, N is 0 and the other dimensions of `images` are arbitrary.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    failed: dict[str, str]


def batches(
    split: Split, prepare: Prepare, order: Sequence[int], *, batch_size: int, workers: int | None, ahead: int = 3
) -> Iterator[Batch]:
    """The images of `split` in `order`, `batch_size` at a time; images that fail are dropped from their batch.

    `workers` threads keep `ahead` batches ready; None means one per core, at most eight.
    """
    chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8), thread_name_prefix="decode")
    waiting: deque[tuple[Sequence[int], list[Future[list[np.ndarray | ImageError]]]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, ahead + 1 - len(waiting)):
                tasks = [chunk[start : start + _TOGETHER] for start in range(0, len(chunk), _TOGETHER)]
                waiting.append((chunk, [pool.submit(_prepare_all, prepare, task) for task in tasks]))
            if not waiting:
                return
            chunk, futures = waiting.popleft()
            yield _collect(split, chunk, [result for future in futures for result in future.result()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def rate(found: Iterable[Batch], seconds: float) -> float:
    """Images per second of a loader on its own, measured for at most about `seconds`."""
    started = time.perf_counter()
    done = 0
    for batch in found:
        done += len(batch.labels) + len(batch.failed)
        if time.perf_counter() - started > seconds:
            break
    return done / (time.perf_counter() - started)


def _prepare_all(prepare: Prepare, indices: Sequence[int]) -> list[np.ndarray | ImageError]:
    results: list[np.ndarray | ImageError] = []
    for index in indices:
        try:
            results.append(prepare(int(index)))
        except ImageError as error:
            results.append(error)
    return results


def _collect(split: Split, indices: Sequence[int], results: list[np.ndarray | ImageError]) -> Batch:
    images, kept, failed = [], [], {}
    for index, result in zip(indices, results, strict=True):
        if isinstance(result, ImageError):
            failed[split.names[index]] = str(result)
        else:
            images.append(result)
            kept.append(int(index))
    stacked = np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)
    return Batch(stacked, split.targets.take(kept).array, np.array(kept, np.int64), failed)
