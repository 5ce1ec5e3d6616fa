"""What other engines make of an ONNX file: the operators they execute, and in which number type."""

from dataclasses import dataclass

import onnx
import onnxruntime


@dataclass(frozen=True)
class Layer:
    """An operator as executed: its kind in the engine's words, the file's operators it stands for, its number type."""

    kind: str
    names: str
    number: str


def executed_by_onnx_runtime(content, folder):
    """The operators of the optimised graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def executed_by_openvino(content):
    """The layers of the compiled model. The number type of a kernel ends its name: jit_avx512_I8, brgemm_avx2_f32."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", hints)
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind, names, kernel = (
            node.get_rt_info()[key].value for key in ("layerType", "originalLayersNames", "primitiveType")
        )
        layers.append(Layer(kind, names, kernel.rpartition("_")[2]))
    return layers
