"""The torch module, eager, channels last; 'train' extra. Runs models."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import MissingExtra
from smallcnn.ir.types import Tensor
from smallcnn.reference.numbers import stored
from smallcnn.system.cpu import openmp_threads
from smallcnn.system.denormals import flushed
from smallcnn.system.fork import forked


def start(loadable: Loadable, threads: int | None) -> Session:
    """Starts torch; its number of threads is that of the whole process. Raises MissingExtra if it is not installed.

    A forked process runs on one thread, because OpenMP would wait there for the parent's threads.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("the engine 'torch'", "train") from error
    from smallcnn.module import to_module

    model = loadable.model
    threads = 1 if forked() else threads or openmp_threads(torch.get_num_threads())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    module = to_module(model.graph, model.weights).eval()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalise, results = model.preprocessing.normalise, model.graph.results
    parallel = _openmp()

    def on_threads(function: Any, argument: Any) -> None:
        assert parallel is not None
        parallel(function, argument, torch.get_num_threads(), 0)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        image = torch.from_numpy(normalise(batch)).permute(0, 3, 1, 2)
        with torch.inference_mode(), flushed(on_threads if parallel and torch.get_num_threads() > 1 else None):
            answer = module(image)
        answers = answer if isinstance(answer, dict) else dict.fromkeys(results, answer)
        return {name: _array(results[name], np.asarray(value)) for name, value in answers.items()}

    return Session(model.graph.input_shape, results, {}, run)


def _openmp() -> Callable[..., object] | None:
    """Calls a function on this thread's team of OpenMP threads, which are torch's; None if torch has another OpenMP."""
    if sys.platform != "linux":
        return None
    try:
        parallel: Callable[..., object] = ctypes.CDLL("libgomp.so.1").GOMP_parallel  # the one torch has loaded
        return parallel
    except (AttributeError, OSError):
        return None


def _array(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """The module's real numbers, channels first -> what the network gives: channels last, in its number type."""
    if real.ndim == 4:
        real = np.ascontiguousarray(real.transpose(0, 2, 3, 1))
    return stored(tensor.number, tensor.grid, real) if tensor.grid else real
