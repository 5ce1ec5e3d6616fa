"""The supported ONNX operators, by name.

Each function takes the network so far and the call, adds nodes and returns the result as a view; those that only move
data take just the call. An unused attribute is an error.
"""

from collections.abc import Callable

from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.onnx.read import arithmetic, moving, quantization, resizing, spatial
from smallcnn.onnx.read.call import Call, Value

COMPUTING: dict[str, Callable[[Network, Call], View | list[View]]] = {
    "Add": arithmetic.add,
    "Affine": arithmetic.line,
    "AveragePool": spatial.pool,
    "BatchNormalization": arithmetic.batch_norm,
    "Clip": arithmetic.clip,
    "Concat": moving.concat,
    "Conv": spatial.conv,
    "DequantizeLinear": quantization.dequantize,
    "Div": arithmetic.div,
    "Exp": arithmetic.exp,
    "Expand": moving.repeated,
    "Gather": moving.gather,
    "GatherND": moving.gather_nd,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": spatial.global_average_pool,
    "HardSigmoid": arithmetic.hard_sigmoid,
    "HardSwish": arithmetic.elementwise("hard_swish"),
    "ImageScaler": arithmetic.image_scaler,
    "LRN": spatial.lrn,
    "LeakyRelu": arithmetic.leaky_relu,
    "MatMul": arithmetic.matmul,
    "Max": arithmetic.bound,
    "MaxPool": spatial.pool,
    "Min": arithmetic.bound,
    "Mul": arithmetic.mul,
    "Neg": arithmetic.line,
    "PRelu": arithmetic.prelu,
    "Pad": spatial.pad,
    "QuantizeLinear": quantization.quantize,
    "ReduceMean": spatial.reduce_mean,
    "Relu": arithmetic.relu,
    "Resize": resizing.resize,
    "Sigmoid": arithmetic.elementwise("sigmoid"),
    "Slice": moving.cut,
    "Split": moving.split,
    "Sub": arithmetic.sub,
    "Sum": arithmetic.add,
    "Tile": moving.repeated,
    "Upsample": resizing.resize,
}

MOVING: dict[str, Callable[[Call], Value]] = {
    "Cast": moving.cast,
    "CastLike": moving.cast_like,
    "Dropout": moving.dropout,
    "Flatten": moving.flatten,
    "Identity": moving.identity,
    "LogSoftmax": moving.softmax,
    "Reshape": moving.reshape,
    "Shape": moving.shape,
    "Softmax": moving.softmax,
    "Squeeze": moving.squeeze,
    "Transpose": moving.transpose,
    "Unsqueeze": moving.unsqueeze,
}

_QUANTIZED = "integer operators are not supported; export floats, or QuantizeLinear and DequantizeLinear"

REFUSED: dict[str, str] = {
    "GlobalMaxPool": "the graph's global pool is a mean, not a maximum",
    "DynamicQuantizeLinear": _QUANTIZED,
    "QLinearConv": _QUANTIZED,
    "QLinearMatMul": _QUANTIZED,
    "ConvInteger": _QUANTIZED,
    "MatMulInteger": _QUANTIZED,
}
"""Reasons for refusing operators that users might expect."""
