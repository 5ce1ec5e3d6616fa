"""Inference engines: each takes a uint8 batch (N, H, W, C) and returns float32 (N, classes).

onnxruntime   .onnx and .safetensors; the default for both, in the base install
compiled      .so and .dll, written by `smallcnn compile`; no other engine runs those
openvino      .onnx and .safetensors; 'openvino' extra
torch         .safetensors, eager, channels last; 'train' extra
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smallcnn.errors import FileError, MissingExtra, SmallcnnError, closest
from smallcnn.model.kinds import COMPILED
from smallcnn.system.fork import Run, forkable, forked

if TYPE_CHECKING:
    from smallcnn.model.model import Model

ENGINES = {
    "onnxruntime": (".safetensors", ".onnx"),
    "compiled": COMPILED,
    "openvino": (".safetensors", ".onnx"),
    "torch": (".safetensors",),
}
"""The files each engine runs; the first engine that runs a file is the default for it."""

SUFFIXES = tuple(dict.fromkeys(suffix for suffixes in ENGINES.values() for suffix in suffixes))


def check_engine(engine: str) -> None:
    """Raises SmallcnnError if there is no such engine."""
    if engine not in ENGINES:
        raise SmallcnnError(f"no engine {engine!r}; {closest(engine, ENGINES)}")


def fitting(path: Path) -> list[str]:
    """The engines that run such a file, the default first."""
    return [engine for engine, suffixes in ENGINES.items() if path.suffix.lower() in suffixes]


def choose(path: Path, engine: str | None) -> str:
    """`engine`, or the default for the file. Raises SmallcnnError if it does not run such a file."""
    fits = fitting(path)
    if engine is None:
        return fits[0]
    if engine in fits:
        return engine
    if engine == "compiled":
        raise SmallcnnError(f"{path}: compile it first: smallcnn compile {path} --out {path.with_suffix(COMPILED[0])}")
    raise SmallcnnError(f"{path}: the engine {engine!r} does not run {path.suffix} files; use {' or '.join(fits)}")


@dataclass(frozen=True)
class Loadable:
    """The input of an engine: an artifact, or the path of an ONNX file."""

    path: Path
    artifact: "Model | None" = None

    @cached_property
    def onnx(self) -> str | bytes:
        """The path of an ONNX file, which engines map rather than copy, or the artifact as an ONNX model."""
        if self.artifact is None:
            return str(self.path)
        from smallcnn.onnx import to_onnx

        return bytes(to_onnx(self.artifact).SerializeToString())


def start(model: Loadable, engine: str, threads: int | None) -> Run:
    """Starts an engine for an artifact or an ONNX file. Raises MissingExtra if it is not installed."""
    starts = {"onnxruntime": onnxruntime, "openvino": openvino, "torch": torch}
    path, artifact = model.path, model.artifact  # the lambda must not keep `model`, which caches its ONNX
    return forkable(starts[engine](model, threads), lambda: starts[engine](Loadable(path, artifact), threads))


def onnxruntime(model: Loadable, threads: int | None) -> Run:
    """ONNX Runtime on the CPU, all graph optimisations."""
    return _runner(_session(model, threads), model.path)


def open_onnx(model: Loadable, engine: str, threads: int | None) -> tuple[Run, dict[str, str], tuple[Any, ...]]:
    """An engine for an ONNX file, the file's metadata, and the shape of its input, as (N, H, W, C).

    ONNX Runtime reads the metadata, because it starts faster than the onnx package. If it is the engine, the file is
    loaded only once.
    """
    if engine == "onnxruntime":
        session = _session(model, threads)
        run = forkable(_runner(session, model.path), lambda: onnxruntime(model, threads))
    else:
        session = _session(model, 1, optimise=False)
        run = start(model, engine, threads)
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return run, metadata, tuple(session.get_inputs()[0].shape)


def plain_answer(model: Loadable, image: np.ndarray) -> np.ndarray:
    """ONNX Runtime's answer without graph optimisation, (classes,): the reference for an engine's own rewrites.

    The plain definition would take seconds.
    """
    return _runner(_session(model, 1, optimise=False), model.path)(image)[0]


def _runner(session: Any, path: Path) -> Run:
    name = session.get_inputs()[0].name

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {name: batch})[0])
        except Exception as error:  # its exceptions have no common base
            reason = str(error).splitlines()[0]
            raise FileError(f"{path}: ONNX Runtime loads it, but cannot run it ({reason})") from error

    return run


def _session(model: Loadable, threads: int | None, optimise: bool = True) -> Any:
    import onnxruntime as ort

    source = model.onnx
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = threads or 0  # 0: one per core
    options.inter_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = str(error).splitlines()[0]
        raise FileError(f"{model.path}: damaged, or not an ONNX model that ONNX Runtime can load ({reason})") from error


def openvino(model: Loadable, threads: int | None) -> Run:
    """OpenVINO on the CPU, tuned for latency, float32."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingExtra("the engine 'openvino'", "openvino") from error
    core = ov.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = core.compile_model(core.read_model(model.onnx), "CPU", hints)
    request = compiled.create_infer_request()
    return lambda batch: np.array(request.infer([batch])[0])


def torch(model: Loadable, threads: int | None) -> Run:
    """The torch module, eager, channels last. `threads` sets torch's threads for the whole process.

    A forked process runs on one thread, because OpenMP would wait there for the parent's threads.
    """
    try:
        import torch as pt
    except ImportError as error:
        raise MissingExtra("the engine 'torch'", "train") from error
    from smallcnn.module import to_module

    assert model.artifact is not None
    threads = 1 if forked() else threads
    if threads:
        pt.set_num_threads(threads)
    module = to_module(model.artifact.graph, model.artifact.weights).eval()
    module.to(memory_format=pt.channels_last)  # type: ignore[call-overload]
    normalise = model.artifact.preprocessing.normalise

    def run(batch: np.ndarray) -> np.ndarray:
        with pt.inference_mode():
            return np.asarray(module(pt.from_numpy(normalise(batch)).permute(0, 3, 1, 2)))

    return run
