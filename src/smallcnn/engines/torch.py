"""The torch module, eager, channels last; 'train' extra. Runs models."""

import numpy as np

from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import MissingExtra
from smallcnn.ir.types import Tensor
from smallcnn.reference.numbers import stored
from smallcnn.system.fork import forked


def start(loadable: Loadable, threads: int | None) -> Session:
    """Starts torch; `threads` sets its threads for the whole process. Raises MissingExtra if it is not installed.

    A forked process runs on one thread, because OpenMP would wait there for the parent's threads.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("the engine 'torch'", "train") from error
    from smallcnn.module import to_module

    model = loadable.model
    threads = 1 if forked() else threads
    if threads:
        torch.set_num_threads(threads)
    module = to_module(model.graph, model.weights).eval()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalise, results = model.preprocessing.normalise, model.graph.results

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            answer = module(torch.from_numpy(normalise(batch)).permute(0, 3, 1, 2))
        answers = answer if isinstance(answer, dict) else dict.fromkeys(results, answer)
        return {name: _array(results[name], np.asarray(value)) for name, value in answers.items()}

    return Session(model.graph.input_shape, results, {}, run)


def _array(tensor: Tensor, real: np.ndarray) -> np.ndarray:
    """The module's real numbers, channels first -> what the network gives: channels last, in its number type."""
    if real.ndim == 4:
        real = np.ascontiguousarray(real.transpose(0, 2, 3, 1))
    return stored(tensor.number, tensor.grid, real) if tensor.grid else real
