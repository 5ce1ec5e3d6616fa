"""OpenVINO on the CPU, tuned for latency, float32; 'openvino' extra. Runs models and ONNX files."""

from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import FileError, MissingExtra
from smallcnn.ir.types import Number, Tensor
from smallcnn.onnx.read import outline
from smallcnn.system.cpu import core_limit
from smallcnn.system.denormals import flushed

_NUMBERS: dict[str, Number] = {"f32": "float32", "u8": "uint8", "i8": "int8", "i32": "int32"}


def start(loadable: Loadable, threads: int | None) -> Session:
    """Starts OpenVINO. Raises MissingExtra if it is not installed, FileError if it cannot load the file."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingExtra("the engine 'openvino'", "openvino") from error
    core = ov.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    hints["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"  # else the input of a dense layer with whole weights is rounded too
    if threads := threads or core_limit():
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        model = core.read_model(loadable.onnx)
        height, width, channels = _shape(model.inputs[0])
        outputs = {output.any_name: _tensor(output) for output in model.outputs}  # compiled, they gain other names
        with flushed():
            compiled = core.compile_model(model, "CPU", hints)
    except Exception as error:  # its exceptions have no common base
        reason = str(error).strip().splitlines()[-1]
        raise FileError(f"{loadable.where}: damaged, or not a model that OpenVINO can load ({reason})") from error
    metadata = outline.metadata(loadable.source) if isinstance(loadable.source, Path) else {}
    request = compiled.create_infer_request()

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        with flushed():  # the caller's setting at the first call is that of its threads for good
            answers = request.infer([batch])
        return {name: np.array(answers[index]) for index, name in enumerate(outputs)}

    return Session((height, width, channels), outputs, metadata, run)


def _tensor(output: Any) -> Tensor:
    return Tensor(_shape(output), _NUMBERS[output.element_type.get_type_name()])


def _shape(port: Any) -> tuple[int, ...]:
    _, *sides = port.partial_shape
    return tuple(side.get_length() for side in sides)
