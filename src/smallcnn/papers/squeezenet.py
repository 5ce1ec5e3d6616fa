"""Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360."""

from collections.abc import Callable

from smallcnn.papers import count
from smallcnn.papers.count import Network
from smallcnn.papers.table import (
    TOP1,
    Figure,
    Note,
    Row,
    Table,
    convention,
    flops,
    not_counted,
    parameters,
    remark,
    unclear,
    wrong,
)

_MEBIBYTE = 2**20

# layer, part of the network, output size, parameters before pruning
_LAYERS = (
    ("conv1", "stem.conv", "111x111x96", "14,208"),
    ("maxpool1", "stem.pool", "55x55x96", ""),
    ("fire2", "fire2", "55x55x128", "11,920"),
    ("fire3", "fire3", "55x55x128", "12,432"),
    ("fire4", "fire4", "55x55x256", "45,344"),
    ("maxpool4", "pool4", "27x27x256", ""),
    ("fire5", "fire5", "27x27x256", "49,440"),
    ("fire6", "fire6", "27x27x384", "104,880"),
    ("fire7", "fire7", "27x27x384", "111,024"),
    ("fire8", "fire8", "27x27x512", "188,992"),
    ("maxpool8", "pool8", "13x13x512", ""),
    ("fire9", "fire9", "13x13x512", "197,184"),
    ("conv10", "classifier", "13x13x1000", "513,000"),
)


def _output(part: str) -> Callable[[Network], str]:
    """The output size of a part, in the format of Table 1."""
    return lambda network: "x".join(map(str, network.layers(part)[-1].output_shape))


def _layer(label: str, part: str, output: str, weights: str) -> Row:
    size = Figure("output", output, _output(part))
    figures = (size, Figure("parameters", weights, count.part_parameters(part))) if weights else (size,)
    return Row(label, figures, "squeezenet_1_0", 227)


def _size(printed: str, note: Note | None = None) -> tuple[Figure, ...]:
    return (Figure("size", printed, count.weight_bytes, note, unit=_MEBIBYTE),)


_COMPRESSED = remark("pruned and quantised weights")
_BYTES = convention("60 million parameters of 4 bytes, in MB of 10^6 bytes; SqueezeNet's 4.8 MB use 2^20")

TABLES = (
    Table("squeezenet.t1", "SqueezeNet architecture, before pruning", (
        Row("input image", (Figure("output", "224x224x3", _output("input"), wrong(
            "111x111 after the first layer, which is not padded, needs 227 pixels")),), "squeezenet_1_0", 227),
        *(_layer(*line) for line in _LAYERS),
        Row("total", (parameters("1,248,424"),), "squeezenet_1_0", 227),
        Row("total after pruning", not_counted({"parameters": "421,098"}, _COMPRESSED)),
    )),
    Table("squeezenet.t2", "SqueezeNet compared with compressed AlexNet, MB of 2^20 bytes", (
        Row("AlexNet", _size("240 MB", _BYTES), "alexnet", accuracy="57.2"),
        Row("AlexNet, SVD", not_counted({"size": "48 MB"}, _COMPRESSED), accuracy="56.0"),
        Row("AlexNet, network pruning", not_counted({"size": "27 MB"}, _COMPRESSED), accuracy="57.2"),
        Row("AlexNet, Deep Compression", not_counted({"size": "6.9 MB"}, _COMPRESSED), accuracy="57.2"),
        Row("SqueezeNet", _size("4.8 MB"), "squeezenet_1_0", accuracy="57.5"),
        Row("SqueezeNet, 8 bits", not_counted({"size": "0.66 MB"}, _COMPRESSED), accuracy="57.5"),
        Row("SqueezeNet, 6 bits", not_counted({"size": "0.47 MB"}, _COMPRESSED), accuracy="57.5"),
    ), TOP1),
    Table("squeezenet.t3", "Bypass connections, MB of 2^20 bytes", (
        Row("Vanilla SqueezeNet", _size("4.8 MB"), "squeezenet_1_0", accuracy="57.5"),
        Row("with simple bypass", _size("4.8 MB"), "squeezenet_1_0:bypass=simple", accuracy="60.4"),
        Row("with complex bypass", _size("7.7 MB", unclear("four 1x1 convolutions with biases come to 6.1 MB")),
            "squeezenet_1_0:bypass=complex", accuracy="58.8"),
    ), TOP1),
    Table("squeezenet.released", "Released networks (github.com/forresti/SqueezeNet), at 227 pixels", (
        Row("SqueezeNet v1.0", (flops("1.72 G", convention(
            "the released file pads the last 1x1 layer: 15x15 outputs, 861 M Mult-Adds")),), "squeezenet_1_0", 227),
        Row("SqueezeNet v1.1", (flops("0.72 G", unclear("0.70 at 224 pixels, 0.78 at 227")),), "squeezenet_1_1", 227),
    )),
)  # fmt: skip
