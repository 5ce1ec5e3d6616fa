"""Results of a function by threads, in the order of its arguments and ahead of the caller."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ready: int, workers: int | None = None
) -> Iterator[Result]:
    """`function` of each item in order, while `workers` threads keep up to `ready` results waiting.

    The default for `workers` is one per core, at most eight. Items are taken only when there is room for their results,
    so that they may come from a camera. What is not wanted any more is not started.
    """
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8), thread_name_prefix="decode")
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    try:
        while True:
            waiting.extend(pool.submit(function, item) for item in islice(rest, ready + 1 - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
