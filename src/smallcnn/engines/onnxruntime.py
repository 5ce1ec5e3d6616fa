"""ONNX Runtime on the CPU, all graph optimisations. Runs models and ONNX files."""

from typing import Any

import numpy as np

from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import FileError
from smallcnn.ir.types import Number, Tensor
from smallcnn.system.cpu import core_limit, sums_bytes_exactly
from smallcnn.system.denormals import flushed

_NUMBERS: dict[str, Number] = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
}


def start(loadable: Loadable, threads: int | None, *, optimise: bool = True) -> Session:
    """Starts ONNX Runtime. Raises FileError if it cannot load the file.

    Without `optimise` it computes what the file says, operator by operator: the reference for an engine's rewrites.
    """
    import onnxruntime as ort

    source = loadable.onnx
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = threads or core_limit() or 0  # 0: one per core
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # in its threads, and this one for good
    if not sums_bytes_exactly():  # else int8 sums overflow; with VNNI this would only halve the speed
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with flushed():
            session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        _, height, width, channels = image.shape
        outputs = {output.name: _tensor(output) for output in session.get_outputs()}
    except Exception as error:  # its exceptions have no common base
        reason = str(error).splitlines()[0]
        raise FileError(
            f"{loadable.where}: damaged, or not an ONNX model that ONNX Runtime can load ({reason})"
        ) from error
    where, name = loadable.where, image.name

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        try:
            with flushed():
                answers = session.run(None, {name: batch})
            return dict(zip(outputs, map(np.asarray, answers), strict=True))
        except Exception as error:  # its exceptions have no common base
            reason = str(error).splitlines()[0]
            raise FileError(f"{where}: ONNX Runtime loads it, but cannot run it ({reason})") from error

    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return Session((height, width, channels), outputs, metadata, run)


def _tensor(output: Any) -> Tensor:
    return Tensor(tuple(output.shape[1:]), _NUMBERS[output.type])
