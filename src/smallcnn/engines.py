"""What runs a network: each engine takes a uint8 batch (N, H, W, C) and returns float32 (N, classes).

ENGINES["onnxruntime"]   from .onnx and .safetensors; the default, in the base install
ENGINES["openvino"]      from the same; 'openvino' extra
ENGINES["torch"]         from .safetensors, eager, channels last; 'train' extra
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.artifact import Artifact
from smallcnn.errors import FileError, MissingExtra, SmallcnnError

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """What an engine may need: an artifact, or the bytes of an ONNX file (made from the artifact on demand)."""

    path: Path
    artifact: Artifact | None
    content: bytes | None

    @cached_property
    def onnx(self) -> bytes:
        """An ONNX model, serialised."""
        if self.content is not None:
            return self.content
        from smallcnn.onnx import to_onnx

        assert self.artifact is not None
        return bytes(to_onnx(self.artifact).SerializeToString())


def onnxruntime(model: Model, threads: int | None) -> Run:
    """ONNX Runtime on the CPU, all graph optimisations."""
    return _runner(_session(model, threads))


def open_onnx(model: Model, engine: str, threads: int | None) -> tuple[Run, dict[str, str]]:
    """An engine for an ONNX file, and the file's metadata.

    The metadata is read by ONNX Runtime, which starts quicker than the onnx package; if that is the engine, the file is
    loaded once.
    """
    if engine == "onnxruntime":
        session = _session(model, threads)
        run = _runner(session)
    else:
        session = _session(model, 1, optimise=False)
        run = ENGINES[engine](model, threads)
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return run, metadata


def _runner(session: Any) -> Run:
    name = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {name: batch})[0])


def _session(model: Model, threads: int | None, optimise: bool = True) -> Any:
    import onnxruntime as ort

    content = model.onnx
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.intra_op_num_threads = threads or 0  # 0: one per core
    options.inter_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = str(error).splitlines()[0]
        raise FileError(f"{model.path}: damaged, or no ONNX model that ONNX Runtime can load ({reason})") from error


def openvino(model: Model, threads: int | None) -> Run:
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


def torch(model: Model, threads: int | None) -> Run:
    """The torch module, eager, channels last. Threads are torch's, for the whole process."""
    if model.artifact is None:
        raise SmallcnnError(f"{model.path}: the engine 'torch' runs .safetensors files; use onnxruntime for this one")
    try:
        import torch as pt
    except ImportError as error:
        raise MissingExtra("the engine 'torch'", "train") from error
    from smallcnn.module import to_module

    if threads:
        pt.set_num_threads(threads)
    module = to_module(model.artifact.graph, model.artifact.weights).eval()
    module.to(memory_format=pt.channels_last)  # type: ignore[call-overload]
    normalise = model.artifact.preprocessing.normalise

    def run(batch: np.ndarray) -> np.ndarray:
        with pt.inference_mode():
            return np.asarray(module(pt.from_numpy(normalise(batch)).permute(0, 3, 1, 2)))

    return run


ENGINES: dict[str, Callable[[Model, int | None], Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "torch": torch,
}
