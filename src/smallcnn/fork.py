"""Engines in a process made by fork: their threads are the parent's, so each starts anew when it is asked.

What the parent had is neither used there nor taken down, which would wait for threads that do not exist.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def forkable(run: Run, again: Callable[[], Run]) -> Run:
    """`run` in this process; in those that are forked from it, what `again` makes there."""
    engine = _Forkable(run, again)
    _ENGINES.add(engine)
    return engine


class _Forkable:
    def __init__(self, run: Run, again: Callable[[], Run]) -> None:
        self._run: Run | None = run
        self._again = again

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if self._run is None:
            self._run = self._again()
        return self._run(batch)

    def forget(self) -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._run))  # never freed
        self._run = None


_ENGINES: "weakref.WeakSet[_Forkable]" = weakref.WeakSet()


_PARENT = os.getpid()


def forked() -> bool:
    """Whether this process was made by fork after this module was loaded."""
    return os.getpid() != _PARENT


def _after_fork() -> None:
    for engine in _ENGINES:
        engine.forget()
    if "onnxruntime" in sys.modules:
        _exit_at_once()


def _exit_at_once() -> None:
    """ONNX Runtime's destructors wait for a thread of the parent when a forked process ends: they are left out."""
    try:
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)
    except (AttributeError, OSError, TypeError):  # glibc alone has it
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
