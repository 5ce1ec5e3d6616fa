"""Engines in a forked process: their threads exist only in the parent, so each engine is restarted on first use.

The parent's engine is neither used nor destroyed there, as destroying it would wait for threads that do not exist.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

Answer = TypeVar("Answer")


def forkable(
    run: Callable[[np.ndarray], Answer], again: Callable[[], Callable[[np.ndarray], Answer]]
) -> Callable[[np.ndarray], Answer]:
    """Runs `run` in this process; a process forked from it runs what `again` makes there."""
    engine = _Forkable(run, again)
    _ENGINES.add(engine)
    return engine


class _Forkable(Generic[Answer]):
    def __init__(
        self, run: Callable[[np.ndarray], Answer], again: Callable[[], Callable[[np.ndarray], Answer]]
    ) -> None:
        self._run: Callable[[np.ndarray], Answer] | None = run
        self._again = again

    def __call__(self, batch: np.ndarray) -> Answer:
        if self._run is None:
            self._run = self._again()
        return self._run(batch)

    def forget(self) -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._run))  # never freed
        self._run = None


_ENGINES: "weakref.WeakSet[_Forkable[Any]]" = weakref.WeakSet()


_PARENT = os.getpid()


def forked() -> bool:
    """Whether this process was forked after this module was loaded."""
    return os.getpid() != _PARENT


def _after_fork() -> None:
    for engine in _ENGINES:
        engine.forget()
    if "onnxruntime" in sys.modules:
        _exit_at_once()


def _exit_at_once() -> None:
    """Skips ONNX Runtime's destructors at exit, which in a forked process wait for a thread of the parent."""
    try:
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)
    except (AttributeError, OSError, TypeError):  # only glibc has it
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
