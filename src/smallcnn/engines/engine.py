"""Inference engines: each starts a `Session` from a model or a file.

onnxruntime   .onnx and .safetensors; the default for both, in the base install
compiled      .so and .dll, written by `smallcnn compile`; no other engine runs those
openvino      .onnx and .safetensors; 'openvino' extra
torch         .safetensors, eager, channels last; 'train' extra

`model.kinds` lists the engines of each kind of file.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallcnn.engines import compiled, onnxruntime, openvino, torch
from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import SmallcnnError, closest
from smallcnn.model import probe, sightings
from smallcnn.model.kinds import COMPILED, KINDS
from smallcnn.system.cpu import usable_cores
from smallcnn.system.fork import forkable
from smallcnn.tasks.detection import first


def _compiled(loadable: Loadable, threads: int | None) -> Session:
    file = compiled.load(loadable.file, threads, loadable.limits)
    return Session(file.input_shape, file.outputs, file.metadata, file.run)


ENGINES: dict[str, Callable[[Loadable, int | None], Session]] = {
    "onnxruntime": onnxruntime.start,
    "compiled": _compiled,
    "openvino": openvino.start,
    "torch": torch.start,
}

MOST_THREADS = 256
"""Threads that an engine may be asked for; more than a machine has cores make it crawl."""


def check_engine(engine: str) -> None:
    """Raises SmallcnnError if there is no such engine."""
    if engine not in ENGINES:
        raise SmallcnnError(f"no engine {engine!r}; {closest(engine, ENGINES)}")


def check_settings(engine: str | None, threads: int | None) -> None:
    """Raises SmallcnnError unless there is such an engine and it may have so many threads."""
    if engine is not None:
        check_engine(engine)
    if threads is not None and threads < 1:
        raise SmallcnnError(f"threads must be at least 1, not {threads}")
    if threads is not None and threads > MOST_THREADS:
        raise SmallcnnError(
            f"threads must be at most {MOST_THREADS}, not {threads}; {usable_cores()} cores can be used here"
        )


def choose(path: Path, engine: str | None) -> str:
    """`engine`, or the default for the file. Raises SmallcnnError if it does not run such a file."""
    fits = KINDS[path.suffix.lower()].engines
    if engine is None:
        return fits[0]
    if engine in fits:
        return engine
    if engine == "compiled":
        raise SmallcnnError(f"{path}: compile it first: smallcnn compile {path} --out {path.with_suffix(COMPILED[0])}")
    raise SmallcnnError(f"{path}: the engine {engine!r} does not run {path.suffix} files; use {' or '.join(fits)}")


def start(loadable: Loadable, engine: str, threads: int | None) -> Session:
    """Starts an engine; a process forked from this one starts it again. Raises MissingExtra if it is not installed."""
    session = ENGINES[engine](loadable, threads)
    if engine == "compiled":  # its threads and memory are its own, and know of forks
        return session
    fresh = replace(loadable)  # `loadable` caches its ONNX
    run = forkable(session.run, lambda: ENGINES[engine](fresh, threads).run)
    if loadable.limits and (most := loadable.limits.most):
        return replace(session, run=lambda batch: first(run(batch), most))
    return replace(session, run=run)


def plain_answer(loadable: Loadable) -> dict[str, np.ndarray]:
    """A model's outputs for the probe image, as `probe_answer`, by ONNX Runtime without optimisation: the reference for
    an engine's own rewrites.

    The plain definition would take seconds.
    """
    end = sightings.end_of(graph := loadable.model.graph)
    if end is not None:
        loadable = loadable.also_giving(end.inputs, sightings.READ)
    session = onnxruntime.start(loadable, 1, optimise=False)
    answer = {name: value[0] for name, value in session.run(probe.probe_image(session.input_shape)).items()}
    if end is None:
        return answer
    read = [answer.pop(sightings.READ + name) for name in end.inputs]
    return sightings.told(graph, answer, read, probe.tolerance(integer=graph.integer))


def rounding(loadable: Loadable) -> float:
    """`probe.rounding` of a network that is no detector, by ONNX Runtime without optimisation."""
    session = onnxruntime.start(loadable, 1, optimise=False)
    return probe.rounding(session.run, session.input_shape)
