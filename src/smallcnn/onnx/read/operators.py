"""The supported ONNX operators, by name.

Each function takes the network so far and the call, adds nodes and returns the result as a view; those that only move
data take just the call. An unused attribute is an error.
"""

from collections.abc import Callable

from smallcnn.foreign import arithmetic
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.onnx.read import arithmetic as reader
from smallcnn.onnx.read import moving, quantization, spatial
from smallcnn.onnx.read.call import Call, Value

COMPUTING: dict[str, Callable[[Network, Call], View | list[View]]] = {
    "Add": reader.add,
    "Affine": reader.line,
    "AveragePool": spatial.pool,
    "BatchNormalization": reader.batch_norm,
    "Clip": reader.clip,
    "Concat": moving.concat,
    "Conv": spatial.conv,
    "DequantizeLinear": quantization.dequantize,
    "Div": reader.binary(arithmetic.over),
    "Expand": moving.repeated,
    "Gather": moving.gather,
    "GatherND": moving.gather_nd,
    "Gemm": reader.gemm,
    "GlobalAveragePool": spatial.global_average_pool,
    "HardSigmoid": reader.hard_sigmoid,
    "HardSwish": reader.elementwise("hard_swish"),
    "ImageScaler": reader.image_scaler,
    "LRN": spatial.lrn,
    "LeakyRelu": reader.leaky_relu,
    "MatMul": reader.matmul,
    "Max": reader.bound,
    "MaxPool": spatial.pool,
    "Min": reader.bound,
    "Mul": reader.binary(arithmetic.times),
    "Neg": reader.line,
    "PRelu": reader.prelu,
    "Pad": spatial.pad,
    "QuantizeLinear": quantization.quantize,
    "ReduceMean": spatial.reduce_mean,
    "Relu": reader.relu,
    "Sigmoid": reader.elementwise("sigmoid"),
    "Slice": moving.cut,
    "Split": moving.split,
    "Sub": reader.binary(arithmetic.minus),
    "Sum": reader.add,
    "Tile": moving.repeated,
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

_RESIZED = "the graph cannot resize maps; images are resized before the network"

REFUSED: dict[str, str] = {
    "GlobalMaxPool": "the graph's global pool is a mean, not a maximum",
    "Upsample": _RESIZED,
    "Resize": _RESIZED,
    "DynamicQuantizeLinear": _QUANTIZED,
    "QLinearConv": _QUANTIZED,
    "QLinearMatMul": _QUANTIZED,
    "ConvInteger": _QUANTIZED,
    "MatMulInteger": _QUANTIZED,
}
"""Reasons for refusing operators that users might expect."""
