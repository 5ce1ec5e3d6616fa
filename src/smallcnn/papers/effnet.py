"""Freeman et al. 2018, "EffNet: An Efficient Structure for Convolutional Neural Networks", arXiv 1801.06434.

FLOPs are two per Mult-Add. The networks of Tables 3, 4, 6 and 7 (SVHN, GTSRB) are not tabulated and are omitted.
"""

from collections.abc import Callable
from math import prod

from smallcnn.papers.count import Network
from smallcnn.papers.table import Figure, Note, Row, Table, flops, not_counted, remark, unclear

# network: (layer as printed, part of the network, floats out)
_TABLE_1 = {
    "baseline": (
        ("3x3x64 + mp", "block1", "16384"),
        ("3x3x128 + mp", "block2", "8192"),
        ("3x3x256 + mp", "block3", "4096"),
    ),
    "mobilenet": (
        ("3x3x64 + mp", "block1", "16384"),
        ("dw 3x3 + stride", "block2.depthwise", "4096"),
        ("1x1x128", "block2.pointwise", "8192"),
        ("dw 3x3 + stride", "block3.depthwise", "2048"),
        ("1x1x256", "block3.pointwise", "4096"),
    ),
    "shufflenet": (
        ("3x3x64 + mp", "block1", "16384"),
        ("gc4 1x1x32", "block2.reduce", "8192"),
        ("dw 3x3 + stride", "block2.depthwise", "2048"),
        ("gc4 1x1x128", "block2.expand", "8192"),
        ("gc4 1x1x64", "block3.reduce", "4096"),
        ("dw 3x3 + stride", "block3.depthwise", "1024"),
        ("gc4 1x1x256", "block3.expand", "4096"),
    ),
    "effnet": (
        ("1x1x32", "block1.pointwise", "32768"),
        ("dw 1x3 + 1d mp", "block1.pool", "16384"),
        ("dw 3x1", "block1.column", "16384"),
        ("2x1x64 + 1d stride", "block1.project", "16384"),
        ("1x1x64", "block2.pointwise", "16384"),
        ("dw 1x3 + 1d mp", "block2.pool", "8192"),
        ("dw 3x1", "block2.column", "8192"),
        ("2x1x128 + 1d stride", "block2.project", "8192"),
        ("1x1x128", "block3.pointwise", "8192"),
        ("dw 1x3 + 1d mp", "block3.pool", "4096"),
        ("dw 3x1", "block3.column", "4096"),
        ("2x1x256 + 1d stride", "block3.project", "4096"),
    ),
}
_NAMES = {"baseline": "Baseline", "mobilenet": "MobileNet", "shufflenet": "ShuffleNet", "effnet": "EffNet"}


def _floats(part: str) -> Callable[[Network], int]:
    """Elements of the part's result."""
    return lambda network: prod(network.layers(part)[-1].output_shape)


def _layer(block: str, printed: str, part: str, floats: str) -> Row:
    return Row(f"{_NAMES[block]}: {printed}", (Figure("floats out", floats, _floats(part)),), _model(block))


def _model(block: str) -> str:
    return f"effnet_cifar:block={block}"


_MORE = unclear("more than two per Mult-Add of the layers in Table 1; the paper does not state what else it counts")
_LARGE = remark("the paper does not print its widths; large=true here uses widths chosen to meet this cost")


def _large(printed: str) -> tuple[Figure, ...]:
    return not_counted({"FLOPs": printed}, _LARGE)


def _revised(expansion: int, printed: str, note: Note | None = None) -> Row:
    return Row(f"EffNet, expansion {expansion}", (flops(printed, note),), f"{_model('revised')},expansion={expansion}",
               accuracy=_REVISED_ACCURACY[expansion])  # fmt: skip


_REVISED_ACCURACY = {6: "83.20", 4: "82.45", 2: "81.67"}
_V2 = remark("its widths are not tabulated")

TABLES = (
    Table("effnet.t1", "CIFAR-10 networks, floats out of each layer", tuple(
        _layer(block, *line) for block, lines in _TABLE_1.items() for line in lines
    )),
    Table("effnet.t2", "CIFAR-10", (
        Row("Baseline", (flops("80.3 M"),), _model("baseline"), accuracy="82.78"),
        Row("EffNet large", _large("79.8 M"), accuracy="85.02"),
        Row("MobileNet", (flops("5.8 M"),), _model("mobilenet"), accuracy="77.48"),
        Row("ShuffleNet", (flops("4.7 M"),), _model("shufflenet"), accuracy="77.30"),
        Row("EffNet", (flops("11.4 M"),), _model("effnet"), accuracy="80.20"),
        Row("MobileNet large", _large("11.6 M"), accuracy="78.18"),
        Row("ShuffleNet large", _large("11.1 M"), accuracy="77.90"),
    ), "CIFAR-10 top-1, %", _MORE),
    Table("effnet.t5", "Revised EffNet and MobileNetV2 on CIFAR-10", (
        _revised(6, "44.1 M"),
        _revised(4, "31.1 M"),
        _revised(2, "18.1 M"),
        Row("MobileNetV2, expansion 6", not_counted({"FLOPs": "42.0 M"}, _V2), accuracy="79.10"),
        Row("MobileNetV2, expansion 4", not_counted({"FLOPs": "29.2 M"}, _V2), accuracy="78.91"),
        Row("MobileNetV2, expansion 2", not_counted({"FLOPs": "16.4 M"}, _V2), accuracy="76.47"),
        Row("mob_imp, expansion 6", not_counted({"FLOPs": "44.0 M"}, _V2), accuracy="84.25"),
    ), "CIFAR-10 top-1, %"),
)  # fmt: skip
