"""Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381.

Table 3 is printed in two versions: arXiv v3, and the later HTML text. Table 7 (segmenters) is omitted. Tables 5 and 6
are counted on the released configurations of detectors, for 80 classes and one for the background.
"""

from collections.abc import Callable
from itertools import groupby

from smallcnn.papers import count
from smallcnn.papers.count import Network
from smallcnn.papers.table import (
    COCO_AP,
    CUT,
    TOP1,
    Figure,
    Note,
    Row,
    Table,
    convention,
    head,
    mult_adds,
    not_counted,
    parameters,
    remark,
    unclear,
    wrong,
)

# input, operator, expansion t, output channels c, repeats n, stride of the first s
_LAYERS = (
    "224x224x3, conv2d, t -, c 32, n 1, s 2",
    "112x112x32, bottleneck, t 1, c 16, n 1, s 1",
    "112x112x16, bottleneck, t 6, c 24, n 2, s 2",
    "56x56x24, bottleneck, t 6, c 32, n 3, s 2",
    "28x28x32, bottleneck, t 6, c 64, n 4, s 2",
    "14x14x64, bottleneck, t 6, c 96, n 3, s 1",
    "14x14x96, bottleneck, t 6, c 160, n 3, s 2",
    "7x7x160, bottleneck, t 6, c 320, n 1, s 1",
    "7x7x320, conv2d 1x1, t -, c 1280, n 1, s 1",
)


def _lines(network: Network) -> list[str]:
    """The lines of Table 2 from the graph: neighbouring blocks of one expansion and width share a line."""
    blocks = []  # input, operator, expansion, output channels, stride
    for part in dict.fromkeys(layer.name.partition(".")[0] for layer in network.profile.layers):
        layers = network.layers(part)
        if not any(layer.type.startswith("conv") for layer in layers):
            continue
        first, last = layers[0].input_shapes[0], layers[-1].output_shape
        is_block = part.startswith("block")
        kernel = " 1x1" if layers[0].type == "conv 1x1" else ""
        depthwise = [layer.output_shape[2] for layer in layers if layer.type.startswith("depthwise")]
        expansion = str(depthwise[0] // first[2]) if is_block else "-"
        operator = "bottleneck" if is_block else f"conv2d{kernel}"
        blocks.append((first, operator, expansion, last[2], first[0] // last[0]))
    lines = []
    for (operator, expansion, out), group in groupby(blocks, key=lambda block: block[1:4]):
        members = list(group)
        plane = "x".join(map(str, members[0][0]))
        lines.append(f"{plane}, {operator}, t {expansion}, c {out}, n {len(members)}, s {members[0][4]}")
    return lines


def _line(number: int) -> Callable[[Network], str]:
    return lambda network: _lines(network)[number]


def _bottlenecks(network: Network) -> int:
    return len({layer.name.partition(".")[0] for layer in network.profile.layers if layer.name.startswith("block")})


def _channels(side: int) -> Callable[[Network], int]:
    return lambda network: count.materialized(network.graph).get(side, 0)


def _bytes(side: int) -> Callable[[Network], int]:
    """16-bit bytes of the widest stored map of this side."""
    return lambda network: 2 * side**2 * _channels(side)(network)


def _most_bytes(largest: int) -> Callable[[Network], int]:
    """16-bit bytes of the largest stored map with a side of at most `largest`."""

    def most(network: Network) -> int:
        stored = count.materialized(network.graph)
        return max(2 * side**2 * channels for side, channels in stored.items() if side <= largest)

    return most


_V1, _V2, _SHUFFLENET = "mobilenet_v1", "mobilenet_v2", "shufflenet_v1:groups=3,scale=2"
_TWO_DIGITS = convention("rounded to two digits")
_V1_199 = wrong("1024 channels of 7x7 at 16 bits take 100 KB")
_STEM = convention("with the first layer fused into the first bottleneck; otherwise its 32 channels are stored")
_SHIFTED_56 = wrong("the next stage's width: in Table 2 the 56x56 blocks output 24 channels")
_SHIFTED_28 = wrong("the next stage's width: in Table 2 the 28x28 blocks output 32 channels")
_SHIFTED_14 = wrong("the next stage's width: in Table 2 the 14x14 blocks output 64 and 96 channels")
_GROUPS_2 = wrong("400, 800 and 1600 are twice the widths of 2 groups; the widths of 3 groups are 480, 960 and 1920")
_NO_32 = unclear("the first layer has 48 channels, and with the pool fused into it, none is stored at this size")

# network: (label, side, channels, KB, note on the channels, note on the KB); the KB follow from the channels
_MATERIALIZED = {
    _V1: ("MobileNetV1", (
        (112, "64", "1600 KB", None, None),
        (56, "128", "800 KB", None, None),
        (28, "256", "400 KB", None, None),
        (14, "512", "200 KB", None, None),
        (7, "1024", "199 KB", None, _V1_199),
        (1, "1024", "2 KB", None, None),
    )),
    _V2: ("MobileNetV2", (
        (112, "16", "400 KB", _STEM, _STEM),
        (56, "32", "200 KB", _SHIFTED_56, _SHIFTED_56),
        (28, "64", "100 KB", _SHIFTED_28, _SHIFTED_28),
        (14, "160", "62 KB", _SHIFTED_14, _SHIFTED_14),
        (7, "320", "32 KB", None, unclear("320 channels of 7x7 at 16 bits take 31 KB")),
        (1, "1280", "2 KB", None, CUT),
    )),
    _SHUFFLENET: ("ShuffleNet (2x, g=3)", (
        (112, "32", "800 KB", _NO_32, _NO_32),
        (56, "48", "300 KB", None, None),
        (28, "400", "600 KB", _GROUPS_2, _GROUPS_2),
        (14, "800", "310 KB", _GROUPS_2, _GROUPS_2),
        (7, "1600", "156 KB", _GROUPS_2, _GROUPS_2),
        (1, "1600", "3 KB", _GROUPS_2, _GROUPS_2),
    )),
}  # fmt: skip

# resolutions of each width: million MACs (cut off), top-1
_RELEASED = {
    1.4: ((224, "582", "75.0"),),
    1.3: ((224, "509", "74.4"),),
    1.0: ((224, "300", "71.8"), (192, "221", "70.7"), (160, "154", "68.8"), (128, "99", "65.3"), (96, "56", "60.3")),
    0.75: ((224, "209", "69.8"), (192, "153", "68.7"), (160, "107", "66.4"), (128, "69", "63.2"), (96, "39", "58.8")),
    0.5: ((224, "97", "65.4"), (192, "71", "63.9"), (160, "50", "61.0"), (128, "32", "57.7"), (96, "18", "51.2")),
    0.35: ((224, "59", "60.3"), (192, "43", "58.2"), (160, "30", "55.7"), (128, "20", "50.8"), (96, "11", "45.5")),
}
_RELEASED_PARAMETERS = {1.4: "6.06", 1.3: "5.34", 1.0: "3.47", 0.75: "2.61", 0.5: "1.95", 0.35: "1.66"}


def _materialized(label: str, model: str, side: int, channels: str, kilobytes: str, *notes: Note | None) -> Row:
    return Row(f"{label}, {side}x{side}", (
        Figure("channels", channels, _channels(side), notes[0]),
        Figure("16-bit memory", kilobytes, _bytes(side), notes[1]),
    ), model)  # fmt: skip


def _released(width: float, resolution: int, million: str, top1: str) -> Row:
    return Row(f"{width}_{resolution}", (
        mult_adds(f"{million} M"),
        Figure("parameters", f"{_RELEASED_PARAMETERS[width]} M", count.weights_and_biases, _NO_BATCH_NORM),
    ), f"mobilenet_v2:width={width:g}", resolution, accuracy=top1)  # fmt: skip


_SSD300 = unclear("the authors' network for COCO has 34.4 B and 34.3 M; 91 columns of scores would give 34.9 and 35.6")
_NO_BATCH_NORM = remark("excludes batch norm's scale and shift")

TABLES = (
    Table("mobilenet_v2.t2", "MobileNetV2: input, operator, t, c, n, s", tuple(
        Row(f"line {i + 1}", (Figure("line", printed, _line(i)),), _V2) for i, printed in enumerate(_LAYERS)
    )),
    Table("mobilenet_v2.t3", "Most channels and memory stored at each size, blocks fused (later HTML text)", (
        *(_materialized(label, model, *line) for model, (label, lines) in _MATERIALIZED.items() for line in lines),
        Row("MobileNetV1, max", (Figure("16-bit memory", "1600 KB", _most_bytes(112)),), _V1),
        Row("MobileNetV2, max", (Figure("16-bit memory", "400 KB", _most_bytes(112), _STEM),), _V2),
        Row("ShuffleNet (2x, g=3), max", (Figure("16-bit memory", "600 KB", _most_bytes(112), wrong(
            "below the 800 KB of its own 112x112 line, and of the widths of 2 groups")),), _SHUFFLENET),
    ), note=_TWO_DIGITS),
    Table("mobilenet_v2.t3_v3", "The same in arXiv v3, where it differs: nothing is stored at 112x112", (
        Row("MobileNetV1, max", (Figure("16-bit memory", "800 KB", _most_bytes(56)),), _V1),
        Row("MobileNetV2, max", (Figure("16-bit memory", "200 KB", _most_bytes(56), _SHIFTED_56),), _V2),
        Row("ShuffleNet (2x, g=3), max", (Figure("16-bit memory", "600 KB", _most_bytes(56), _GROUPS_2),), _SHUFFLENET),
    ), note=_TWO_DIGITS),
    Table("mobilenet_v2.t4", "Performance on ImageNet", (
        Row("MobileNetV1", (mult_adds("575 M", wrong("569 M in the paper of MobileNet v1")), parameters("4.2 M")), _V1,
            accuracy="70.6"),
        Row("ShuffleNet (1.5)", (mult_adds("292 M"), parameters("3.4 M")), "shufflenet_v1:groups=3,scale=1.5",
            accuracy="71.5"),
        Row("ShuffleNet (x2)", (
            mult_adds("524 M"), parameters("5.4 M", convention("the released classifier has no biases: 5.4498 M")),
        ), _SHUFFLENET, accuracy="73.7"),
        Row("NasNet-A", (mult_adds("564 M"), parameters("5.3 M")), "nasnet_a_mobile", accuracy="74.0"),
        Row("MobileNetV2", (
            mult_adds("300 M", CUT), parameters("3.4 M", unclear("3.47 M even without batch norm's scale and shift")),
        ), _V2, accuracy="72.0"),
        Row("MobileNetV2 (1.4)", (
            mult_adds("585 M", unclear("the released network has 582 M")),
            parameters("6.9 M", wrong("6.06 M without, 6.11 M with batch norm's scale and shift, as released")),
        ), "mobilenet_v2:width=1.4", accuracy="74.7"),
    ), TOP1),
    Table("mobilenet_v2.t5", "Heads of SSD and SSDLite on MobileNetV2 at 320 pixels, 80 classes", (
        Row("SSD", head("1.25 B", "14.8 M", CUT), "ssd:backbone=mobilenet_v2,predictor=3x3", 320),
        Row("SSDLite", head("0.35 B", "2.1 M", wrong(
            "two per Mult-Add: 0.178 B; with 0.35 B the whole network would have 0.96 B, not the 0.8 B of Table 6")),
            "ssdlite"),
    )),
    Table("mobilenet_v2.t6", "Object detection on COCO", (
        Row("SSD300", (mult_adds("35.2 B", _SSD300), parameters("36.1 M", _SSD300)), "ssd:backbone=vgg16",
            accuracy="23.2"),
        Row("SSD512", not_counted({"Mult-Adds": "99.5 B", "parameters": "36.1 M"}), accuracy="26.8"),
        Row("YOLOv2", not_counted({"Mult-Adds": "17.5 B", "parameters": "50.7 M"}), accuracy="21.6"),
        Row("MNet V1 + SSDLite", (mult_adds("1.3 B"), parameters("5.1 M")), "ssdlite:backbone=mobilenet_v1",
            accuracy="22.2"),
        Row("MNet V2 + SSDLite", (mult_adds("0.8 B"), parameters("4.3 M")), "ssdlite", accuracy="22.1"),
    ), COCO_AP),
    Table("mobilenet_v2.released", "Released checkpoints (tensorflow/models, research/slim, mobilenet)", tuple(
        _released(width, *line) for width, lines in _RELEASED.items() for line in lines
    ), TOP1, CUT),
    Table("mobilenet_v2.text", "Figures in the running text", (
        Row("bottleneck layers, section 4", (Figure("blocks", "19", _bottlenecks, wrong(
            "Table 2 adds up to 17: 1 + 2 + 3 + 4 + 3 + 3 + 1")),), _V2),
        Row("cheapest network, 0.35 at 96 pixels", (mult_adds("7 M", wrong("the released grid has 11 M for it")),),
            "mobilenet_v2:width=0.35", 96),
    )),
)  # fmt: skip
