"""TensorFlow Lite files in the making, for tests: built with the schema's own builder."""

import numpy as np
import pytest

tflite = pytest.importorskip("tflite")
import flatbuffers  # noqa: E402  (comes with tflite)
from flatbuffers import flexbuffers  # noqa: E402

OP, KIND, ACT, PAD = tflite.BuiltinOperator, tflite.TensorType, tflite.ActivationFunctionType, tflite.Padding
KIND_OF = {np.dtype(name): kind for name, kind in {
    "float32": KIND.FLOAT32, "float16": KIND.FLOAT16, "int8": KIND.INT8, "uint8": KIND.UINT8, "int32": KIND.INT32,
    "int64": KIND.INT64, "int16": KIND.INT16,
}.items()}  # fmt: skip
OPTIONS = {
    OP.CONV_2D: "Conv2DOptions", OP.DEPTHWISE_CONV_2D: "DepthwiseConv2DOptions", OP.ADD: "AddOptions",
    OP.FULLY_CONNECTED: "FullyConnectedOptions", OP.AVERAGE_POOL_2D: "Pool2DOptions", OP.MAX_POOL_2D: "Pool2DOptions",
    OP.CONCATENATION: "ConcatenationOptions", OP.SOFTMAX: "SoftmaxOptions", OP.MUL: "MulOptions", OP.SUB: "SubOptions",
    OP.DIV: "DivOptions", OP.LEAKY_RELU: "LeakyReluOptions", OP.SPLIT: "SplitOptions", OP.GATHER: "GatherOptions",
    OP.STRIDED_SLICE: "StridedSliceOptions", OP.RESIZE_BILINEAR: "ResizeBilinearOptions",
    OP.RESIZE_NEAREST_NEIGHBOR: "ResizeNearestNeighborOptions",
}  # fmt: skip


def settings(options):
    """A FlexBuffer of numbers and flags."""
    made = flexbuffers.Builder()
    with made.Map():
        for name, value in options.items():
            made.Add(name, value)
    return bytes(made.Finish())


class Draft:
    """A .tflite file in the making: add tensors and operators, then write."""

    def __init__(self):
        self.tensors, self.operators, self.metadata = [], [], {}

    def tensor(self, shape, kind=KIND.FLOAT32, scale=None, zero=0, axis=0, data=None):
        """A tensor; `scale` and `zero` are one number or one per channel of `axis`."""
        self.tensors.append((shape, kind, np.atleast_1d(scale), np.atleast_1d(zero), axis, data))
        return len(self.tensors) - 1

    def constant(self, array, **quantization):
        return self.tensor(array.shape, KIND_OF[array.dtype], data=array, **quantization)

    def op(self, code, inputs, output, **options):
        """`options` in the words of the schema: StrideH=2. `code` is a name for an operator outside the schema, whose
        options are numbers and flags."""
        self.operators.append((code, inputs, output, options))
        return output

    def write(self, path, inputs, outputs):
        b = flatbuffers.Builder(0)

        def vector(offsets):
            b.StartVector(4, len(offsets), 4)
            for offset in reversed(offsets):
                b.PrependUOffsetTRelative(offset)
            return b.EndVector()

        def numbers(values, kind):
            return b.CreateNumpyVector(np.array(values, kind))

        def table(name, **fields):
            getattr(tflite, f"{name}Start")(b)
            for field, value in fields.items():
                getattr(tflite, f"{name}Add{field}")(b, value)
            return getattr(tflite, f"{name}End")(b)

        contents = [None, *(data for *_, data in self.tensors if data is not None)]
        held = [None if data is None else b.CreateByteVector(data.tobytes()) for data in contents]
        buffers = [table("Buffer", **({} if data is None else {"Data": data})) for data in held]
        tensors, buffer = [], 0
        for number, (shape, kind, scale, zero, axis, data) in enumerate(self.tensors):
            fields = {"Name": b.CreateString(f"tensor{number}"), "Shape": numbers(shape, np.int32), "Type": kind}
            if scale[0] is not None:
                fields["Quantization"] = table(
                    "QuantizationParameters", Scale=numbers(scale, np.float32), ZeroPoint=numbers(zero, np.int64),
                    QuantizedDimension=axis,
                )  # fmt: skip
            if data is not None:
                buffer += 1
            tensors.append(table("Tensor", **fields, Buffer=buffer if data is not None else 0))
        codes = list(dict.fromkeys(code for code, *_ in self.operators))
        operators = []
        for code, ins, output, options in self.operators:
            fields = {"Inputs": numbers(ins, np.int32), "Outputs": numbers(np.atleast_1d(output), np.int32)}
            if isinstance(code, str):
                fields["CustomOptions"] = b.CreateByteVector(settings(options))
            if code in OPTIONS:
                fields["BuiltinOptions"] = table(OPTIONS[code], **options)
                fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, OPTIONS[code])
            operators.append(table("Operator", OpcodeIndex=codes.index(code), **fields))
        graph = table(
            "SubGraph", Tensors=vector(tensors), Inputs=numbers(inputs, np.int32), Outputs=numbers(outputs, np.int32),
            Operators=vector(operators),
        )  # fmt: skip
        opcodes = [
            table(
                "OperatorCode", DeprecatedBuiltinCode=OP.CUSTOM, BuiltinCode=OP.CUSTOM, CustomCode=b.CreateString(code)
            )
            if isinstance(code, str)
            else table("OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code)
            for code in codes
        ]
        buffers += [table("Buffer", Data=b.CreateByteVector(data)) for data in self.metadata.values()]
        first = len(buffers) - len(self.metadata)
        entries = [
            table("Metadata", Name=b.CreateString(name), Buffer=first + i) for i, name in enumerate(self.metadata)
        ]
        model = table(
            "Model", Version=3, OperatorCodes=vector(opcodes), Subgraphs=vector([graph]), Buffers=vector(buffers),
            Metadata=vector(entries),
        )  # fmt: skip
        b.Finish(model, file_identifier=b"TFL3")
        path.write_bytes(b.Output())
        return path
