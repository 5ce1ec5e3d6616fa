"""Batches of prepared pictures, decoded ahead by threads.

Threads, because Pillow decodes and resizes outside Python's lock: no processes to start or clean up, and evaluation
needs no torch. The order of the batches and what is in them do not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from smallcnn.data.sources import Split
from smallcnn.errors import ImageError

Prepare = Callable[[int], np.ndarray]
"""Index of a picture -> uint8 (H, W, C); ImageError if it cannot be decoded."""


@dataclass(frozen=True)
class Batch:
    """uint8 images (N, H, W, C), labels (N,), and what could not be decoded: name -> what is wrong."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    failed: dict[str, str]


def batches(
    split: Split, prepare: Prepare, order: Sequence[int], *, batch_size: int, workers: int, ahead: int = 3
) -> Iterator[Batch]:
    """The pictures of `split` in `order`, `batch_size` at a time; pictures that fail are left out of their batch.

    `workers` threads keep `ahead` batches ready.
    """
    chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="decode")
    waiting: deque[tuple[Sequence[int], list[Future[np.ndarray]]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, ahead + 1 - len(waiting)):
                waiting.append((chunk, [pool.submit(prepare, int(index)) for index in chunk]))
            if not waiting:
                return
            yield _collect(split, *waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _collect(split: Split, indices: Sequence[int], futures: list[Future[np.ndarray]]) -> Batch:
    images, kept, failed = [], [], {}
    for index, future in zip(indices, futures, strict=True):
        try:
            images.append(future.result())
            kept.append(int(index))
        except ImageError as error:
            failed[split.names[index]] = str(error)
    stacked = np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)
    return Batch(stacked, split.labels[kept], np.array(kept, np.int64), failed)
