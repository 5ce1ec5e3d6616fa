"""Howard et al. 2017, "MobileNets: Efficient CNNs for Mobile Vision Applications", arXiv 1704.04861.

Table 11 (PlaNet) is omitted: its network has a head that the paper does not describe. Table 13 (COCO) is counted on the
released configuration of SSD, for the 90 classes that it has and one for the background.
"""

from collections.abc import Callable
from fractions import Fraction

from smallcnn.cost import formulas
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.papers import count
from smallcnn.papers.classics import ALEXNET_60, ALEXNET_720, GOOGLENET_68, VGG_15300
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
    mult_adds,
    not_counted,
    parameters,
    unclear,
    wrong,
)

# "type / stride, filter, input" of every layer with weights, top to bottom, as printed in Table 1
_LAYERS = (
    "Conv / s2, 3x3x3x32, 224x224x3",
    "Conv dw / s1, 3x3x32 dw, 112x112x32",
    "Conv / s1, 1x1x32x64, 112x112x32",
    "Conv dw / s2, 3x3x64 dw, 112x112x64",
    "Conv / s1, 1x1x64x128, 56x56x64",
    "Conv dw / s1, 3x3x128 dw, 56x56x128",
    "Conv / s1, 1x1x128x128, 56x56x128",
    "Conv dw / s2, 3x3x128 dw, 56x56x128",
    "Conv / s1, 1x1x128x256, 28x28x128",
    "Conv dw / s1, 3x3x256 dw, 28x28x256",
    "Conv / s1, 1x1x256x256, 28x28x256",
    "Conv dw / s2, 3x3x256 dw, 28x28x256",
    "Conv / s1, 1x1x256x512, 14x14x256",
    *("Conv dw / s1, 3x3x512 dw, 14x14x512", "Conv / s1, 1x1x512x512, 14x14x512") * 5,
    "Conv dw / s2, 3x3x512 dw, 14x14x512",
    "Conv / s1, 1x1x512x1024, 7x7x512",
    "Conv dw / s2, 3x3x1024 dw, 7x7x1024",
    "Conv / s1, 1x1x1024x1024, 7x7x1024",
    "FC / s1, 1024x1000, 1x1x1024",
)
_LAYER_NOTES = {
    25: wrong("stride 2 would turn 7x7 into 4x4, but the next input is 7x7: the stride is 1, as in the released code"),
}


def _layer(number: int) -> Callable[[Network], str]:
    """Layer `number` with weights, in the format of Table 1."""

    def text(network: Network) -> str:
        graph = network.graph
        node = [node for node in graph if isinstance(node.op, ops.Conv | ops.Dense)][number]
        return _as_printed(node, graph.input_shapes(node)[0])

    return text


def _as_printed(node: Node, shape: ops.Shape) -> str:
    if not isinstance(node.op, ops.Conv):
        return f"FC / s1, {shape[0]}x{node.shape[0]}, 1x1x{shape[0]}"
    kernel, stride = node.op.kernel, node.op.stride[0]
    if node.op.is_depthwise(shape):
        return f"Conv dw / s{stride}, {_by(*kernel, shape[2])} dw, {_by(*shape)}"
    return f"Conv / s{stride}, {_by(*kernel, shape[2], node.op.out)}, {_by(*shape)}"


def _by(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def _shares(type_: str, of_mult_adds: str, of_parameters: str, note: Note | None = None) -> tuple[Figure, Figure]:
    return (
        Figure("Mult-Adds", of_mult_adds, count.mult_adds_share(type_), note),
        Figure("parameters", of_parameters, count.weights_share(type_)),
    )


def _one_layer(label: str, million_mult_adds: str, million_parameters: str, alpha: Fraction, side: int) -> Row:
    """A line of Table 3: D_K = 3, M = N = 512, D_F = 14, by the closed formulas."""
    width = int(512 * alpha)
    formula = formulas.standard if label == "Convolution" else formulas.separable
    return Row(label, (
        Figure("Mult-Adds", million_mult_adds, formula(3, width, width, side)),
        Figure("parameters", million_parameters, formula(3, width, width, 1)),
    ))  # fmt: skip


def _body(printed_mult_adds: str, printed_parameters: str, note: Note | None = None) -> tuple[Figure, Figure]:
    return (
        Figure("Mult-Adds", printed_mult_adds, count.body_mult_adds, note),
        Figure("parameters", printed_parameters, count.body_parameters),
    )


def _face(printed_mult_adds: str, printed_parameters: str, note: Note | None = None) -> tuple[Figure, Figure]:
    return (
        Figure("Mult-Adds", printed_mult_adds, count.body_mult_adds, note),
        Figure("parameters", printed_parameters, note=_EMBEDDING),
    )


# width: (resolution, million MACs, million parameters, top-1)
_RELEASED = {
    1.0: ((224, "569", "4.24", "70.9"), (192, "418", "4.24", "70.0"), (160, "291", "4.24", "68.0"),
          (128, "186", "4.24", "65.2")),
    0.75: ((224, "317", "2.59", "68.4"), (192, "233", "2.59", "67.2"), (160, "162", "2.59", "65.3"),
           (128, "104", "2.59", "62.1")),
    0.5: ((224, "150", "1.34", "63.3"), (192, "110", "1.34", "61.7"), (160, "77", "1.34", "59.1"),
          (128, "49", "1.34", "56.3")),
    0.25: ((224, "41", "0.47", "49.8"), (192, "34", "0.47", "47.7"), (160, "21", "0.47", "45.5"),
           (128, "14", "0.47", "41.5")),
}  # fmt: skip

_RELEASED_NOTES = {
    **{(0.75, resolution): wrong("the paper has 325 M at 224 pixels; this column is 2.6 % below at every size")
       for resolution in (224, 192, 160, 128)},
    (0.5, 224): unclear("149 M in the paper"),
    (0.25, 192): wrong("41 M at 224 pixels is 30 M at 192"),
}  # fmt: skip


def _released(width: float, resolution: int, million_mult_adds: str, million_parameters: str, top1: str) -> Row:
    return Row(f"{width}_{resolution}", (
        mult_adds(f"{million_mult_adds} M", _RELEASED_NOTES.get((width, resolution))),
        parameters(f"{million_parameters} M"),
    ), f"mobilenet_v1:width={width:g}", resolution, accuracy=top1)  # fmt: skip


_224 = (mult_adds("569 M"), parameters("4.2 M"))
_THOUSAND_CLASSES = convention("the figure for the network with 1000 classes")
_DOGS_1000 = (mult_adds("569 M", _THOUSAND_CLASSES), parameters("3.3 M"))
_EMBEDDING = unclear("more than the body; the paper does not describe the embedding layer")

TABLES = (
    Table("mobilenet_v1.t1", "MobileNet body architecture", tuple(
        Row(f"layer {i + 1}", (Figure("layer", printed, _layer(i), _LAYER_NOTES.get(i)),), "mobilenet_v1")
        for i, printed in enumerate(_LAYERS)
    )),
    Table("mobilenet_v1.t2", "Resource per layer type", (
        Row("Conv 1x1", _shares("conv 1x1", "94.86 %", "74.59 %"), "mobilenet_v1"),
        Row("Conv DW 3x3", _shares("depthwise conv 3x3", "3.06 %", "1.06 %"), "mobilenet_v1"),
        Row("Conv 3x3", _shares("conv 3x3", "1.19 %", "0.02 %", wrong(
            "digits swapped: the column adds up to 99.29 % as printed and to 100 % with 1.91")), "mobilenet_v1"),
        Row("Fully Connected", _shares("dense", "0.18 %", "24.33 %"), "mobilenet_v1"),
    )),
    Table("mobilenet_v1.t3", "One layer, modified step by step: 3x3, 512 -> 512 channels, 14x14", (
        _one_layer("Convolution", "462 M", "2.36 M", Fraction(1), 14),
        _one_layer("Depthwise Separable Conv", "52.3 M", "0.27 M", Fraction(1), 14),
        _one_layer("alpha = 0.75", "29.6 M", "0.15 M", Fraction(3, 4), 14),
        _one_layer("rho = 0.714", "15.1 M", "0.15 M", Fraction(3, 4), 10),
    )),
    Table("mobilenet_v1.t4", "Depthwise separable against full convolutions", (
        Row("Conv MobileNet", (
            mult_adds("4866 M", convention("without the classifier, 1.024 M, which the other rows include")),
            parameters("29.3 M"),
        ), "mobilenet_v1:variant=conv", accuracy="71.7"),
        Row("MobileNet", _224, "mobilenet_v1", accuracy="70.6"),
    ), TOP1),
    Table("mobilenet_v1.t5", "Narrow against shallow", (
        Row("0.75 MobileNet", (mult_adds("325 M"), parameters("2.6 M")), "mobilenet_v1:width=0.75", accuracy="68.4"),
        Row("Shallow MobileNet", (mult_adds("307 M"), parameters("2.9 M")), "mobilenet_v1:variant=shallow",
            accuracy="65.3"),
    ), TOP1),
    Table("mobilenet_v1.t6", "Width multiplier", (
        Row("1.0 MobileNet-224", _224, "mobilenet_v1", accuracy="70.6"),
        Row("0.75 MobileNet-224", (mult_adds("325 M"), parameters("2.6 M")), "mobilenet_v1:width=0.75",
            accuracy="68.4"),
        Row("0.5 MobileNet-224", (mult_adds("149 M"), parameters("1.3 M")), "mobilenet_v1:width=0.5", accuracy="63.7"),
        Row("0.25 MobileNet-224", (mult_adds("41 M"), parameters("0.5 M")), "mobilenet_v1:width=0.25",
            accuracy="50.6"),
    ), TOP1),
    Table("mobilenet_v1.t7", "Resolution", (
        Row("1.0 MobileNet-224", _224, "mobilenet_v1", 224, accuracy="70.6"),
        Row("1.0 MobileNet-192", (mult_adds("418 M"), parameters("4.2 M")), "mobilenet_v1", 192, accuracy="69.1"),
        Row("1.0 MobileNet-160", (mult_adds("290 M", CUT), parameters("4.2 M")),
            "mobilenet_v1", 160, accuracy="67.2"),
        Row("1.0 MobileNet-128", (mult_adds("186 M"), parameters("4.2 M")), "mobilenet_v1", 128, accuracy="64.4"),
    ), TOP1),
    Table("mobilenet_v1.t8", "MobileNet compared with popular networks", (
        Row("1.0 MobileNet-224", _224, "mobilenet_v1", accuracy="70.6"),
        Row("GoogleNet", (
            mult_adds("1550 M", unclear("Table 1 of the GoogLeNet paper adds up to 1502 M")),
            parameters("6.8 M", GOOGLENET_68),
        ), "googlenet", accuracy="69.8"),
        Row("VGG 16", (mult_adds("15300 M", VGG_15300), parameters("138 M")), "vgg16", accuracy="71.5"),
    ), TOP1),
    Table("mobilenet_v1.t9", "Smaller MobileNet compared with popular networks", (
        Row("0.50 MobileNet-160", (
            mult_adds("76 M", CUT),
            parameters("1.32 M", convention("without batch norm's scale and shift")),
        ), "mobilenet_v1:width=0.5", 160, accuracy="60.2"),
        Row("Squeezenet", (
            mult_adds("1700 M", wrong(
                "FLOPs, two per Mult-Add, of the released 227-pixel file; '22x more compute' is thus about 11x")),
            parameters("1.25 M"),
        ), "squeezenet_1_0", accuracy="57.5"),
        Row("AlexNet", (mult_adds("720 M", ALEXNET_720), parameters("60 M", ALEXNET_60)), "alexnet", accuracy="57.2"),
    ), TOP1),
    Table("mobilenet_v1.t10", "Stanford Dogs", (
        Row("Inception V3", not_counted({"Mult-Adds": "5000 M", "parameters": "23.2 M"}), accuracy="84"),
        Row("1.0 MobileNet-224", _DOGS_1000, "mobilenet_v1", 224, 120, "83.3"),
        Row("0.75 MobileNet-224", (mult_adds("325 M"), parameters("1.9 M")), "mobilenet_v1:width=0.75", 224, 120,
            "81.9"),
        Row("1.0 MobileNet-192", (mult_adds("418 M", _THOUSAND_CLASSES), parameters("3.3 M")), "mobilenet_v1", 192,
            120, "81.9"),
        Row("0.75 MobileNet-192", (mult_adds("239 M"), parameters("1.9 M")), "mobilenet_v1:width=0.75", 192, 120,
            "80.5"),
    ), "Stanford Dogs top-1, %"),
    Table("mobilenet_v1.t12", "Face attributes: networks without the classifier", (
        Row("1.0 MobileNet-224", _body("568 M", "3.2 M"), "mobilenet_v1", 224, accuracy="88.7"),
        Row("0.5 MobileNet-224", _body("149 M", "0.8 M"), "mobilenet_v1:width=0.5", 224, accuracy="88.1"),
        Row("0.25 MobileNet-224", _body("45 M", "0.2 M", unclear("Table 6 has 41 M for it, with the classifier")),
            "mobilenet_v1:width=0.25", 224, accuracy="87.2"),
        Row("1.0 MobileNet-128", _body("185 M", "3.2 M"), "mobilenet_v1", 128, accuracy="88.1"),
        Row("0.5 MobileNet-128", _body("48 M", "0.8 M", CUT),
            "mobilenet_v1:width=0.5", 128, accuracy="87.7"),
        Row("0.25 MobileNet-128", _body("15 M", "0.2 M", unclear("does not match the layers of Table 1")),
            "mobilenet_v1:width=0.25", 128, accuracy="86.4"),
        Row("Baseline", not_counted({"Mult-Adds": "1600 M"}) + not_counted({"parameters": "7.5 M"}, wrong(
            "section 4.5 says 75 million")), accuracy="86.9"),
    ), "mean AP"),
    Table("mobilenet_v1.t13", "Object detection on COCO: SSD at 300 pixels, Faster-RCNN at 300 and 600", (
        Row("SSD 300, deeplab-VGG", (mult_adds("34.9 B"), parameters("33.1 M", unclear(
            "35.6 M with the 91 columns of scores that 34.9 B Mult-Adds need"))), "ssd:backbone=vgg16", classes=90,
            accuracy="21.1"),
        Row("SSD 300, Inception V2", not_counted({"Mult-Adds": "3.8 B", "parameters": "13.7 M"}), accuracy="22.0"),
        Row("SSD 300, MobileNet", (mult_adds("1.2 B"), parameters("6.8 M")), "ssd", classes=90, accuracy="19.3"),
        *(Row(f"Faster-RCNN {label}", not_counted({"Mult-Adds": million, "parameters": weights}), accuracy=accuracy)
          for label, million, weights, accuracy in (
              ("300, VGG", "64.3 B", "138.5 M", "22.9"), ("300, Inception V2", "118.2 B", "13.3 M", "15.4"),
              ("300, MobileNet", "25.2 B", "6.1 M", "16.4"), ("600, VGG", "149.6 B", "138.5 M", "25.7"),
              ("600, Inception V2", "129.6 B", "13.3 M", "21.9"), ("600, MobileNet", "30.5 B", "6.1 M", "19.8"))),
    ), COCO_AP),
    Table("mobilenet_v1.t14", "FaceNet distilled: Mult-Adds without the embedding layer", (
        Row("FaceNet", not_counted({"Mult-Adds": "1600 M", "parameters": "7.5 M"}), accuracy="83"),
        Row("1.0 MobileNet-160", _face("286 M", "4.9 M", unclear("the layers of Table 1 give 290 M")), "mobilenet_v1",
            160, accuracy="79.4"),
        Row("1.0 MobileNet-128", _face("185 M", "5.5 M"), "mobilenet_v1", 128, accuracy="78.3"),
        Row("0.75 MobileNet-128", _face("166 M", "3.4 M", wrong("the resolution should read 160, where it is 165.6 M")),
            "mobilenet_v1:width=0.75", 128, accuracy="75.2"),
        Row("0.75 MobileNet-128", _face("108 M", "3.8 M", unclear("the body alone is 106 M")),
            "mobilenet_v1:width=0.75", 128, accuracy="72.5"),
    ), "accuracy at 1e-4, %"),
    Table("mobilenet_v1.released", "Released checkpoints (tensorflow/models, research/slim, mobilenet_v1.md)", tuple(
        _released(width, *line) for width, lines in _RELEASED.items() for line in lines
    ), TOP1, unclear("neither the 1001st class nor the batch norm statistics explain the difference")),
    Table("mobilenet_v1.text", "Figures in the running text", (
        Row("PlaNet with MobileNet, section 4.4", (
            Figure("Mult-Adds", "0.58 M", count.body_mult_adds, wrong("Million should read Billion")),
            Figure("body parameters", "3 M", count.body_parameters),
        ), "mobilenet_v1"),
    )),
)  # fmt: skip
