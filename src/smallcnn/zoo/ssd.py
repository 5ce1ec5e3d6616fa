"""SSD: Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325; SSDLite: MobileNetV2's section 6.2.

Input (resolution, resolution, channels); outputs boxes, scores, classes and count of the objects found: see
`ir.ops.Detect`. Six maps are read: two of the backbone, and four that extra layers make from its last one.

Over VGG-16, `ssd` is the paper's SSD300. The others are TensorFlow's released configurations
(research/object_detection/samples/configs, ssd_mobilenet_v1_coco.config and ssdlite_mobilenet_v2_coco.config): extra
layers of 512, 256, 256 and 128 channels, times the width multiplier and at least 16; batch norm and ReLU6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Unpack

from smallcnn.ir.builder import Builder, PaddingLike
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import AnchorGrid, Detect
from smallcnn.zoo import anchors
from smallcnn.zoo.backbones import backbone as body_of
from smallcnn.zoo.options import NETWORK, Common
from smallcnn.zoo.registry import Configuration, parse, register
from smallcnn.zoo.vgg import atrous

_EXTRA = (512, 256, 256, 128)
_LEAST = 16  # channels of an extra layer
_MULTIPLIERS = ("width", "scale")  # options of backbones that multiply their channels
_EPSILON = 0.001
_VGG = "vgg16"

# 1x1 and 3x3 channels of the extra layers, whether the 3x3 halves the plane       Figure 2
_PAPER_EXTRA = ((256, 512, True), (128, 256, True), (128, 256, False), (128, 256, False))
_L2_SCALE = 20.0  # of the first map, at the start: section 3.1

_Predict = Callable[[Builder, Node, int, str], Node]
"""Builder, map, channels of the result, name -> map of codes or scores."""


@dataclass(frozen=True)
class _Form:
    """What sets apart the detectors of one origin: anchors for maps and an input size, and attributes of `Detect`."""

    anchors: Callable[[Sequence[Node], tuple[int, int]], tuple[AnchorGrid, ...]]
    padding: Literal["same", "symmetric"]
    detect: dict[str, Any]


_FORMS = {
    # released with a threshold of 1e-8; that of the paper leaves suppression far less to do
    "tensorflow": _Form(
        anchors.tensorflow, "same", {"score": "sigmoid", "threshold": 0.01, "overlap": 0.6, "most": 100}
    ),
    "torchvision": _Form(
        anchors.torchvision, "symmetric", {"score": "softmax", "threshold": 0.001, "overlap": 0.55, "most": 300}
    ),
    "paper": _Form(
        anchors.paper, "symmetric", {"score": "softmax", "threshold": 0.01, "overlap": 0.45, "most": 200}
    ),
}  # fmt: skip


@register(resolution=300, classes=80)
def ssd(
    g: Builder,
    *,
    backbone: Annotated[str, NETWORK] = "mobilenet_v1",
    predictor: Literal["released", "1x1", "3x3"] = "released",
    **common: Unpack[Common],
) -> Graph:
    """SSD over a classifier.

    `backbone` is a network; its options may be written beside those of SSD: `ssd:backbone=mobilenet_v1,width=0.5`.
    `predictor` is the convolution that gives codes and scores: "released" is 3x3 over VGG-16 and 1x1 over the others.
    `classes` are those of objects; scores have one more column, the first, for the background.

    Raises GraphError if an option is out of range, or the backbone has no map at half the stride of its features.
    """
    model = parse(backbone)
    first, last = maps = _backbone(g, model)
    if model.name == _VGG:
        form, usual, extra = _FORMS["paper"], 3, _paper_extra(g, last)
        maps = (_normalised(g, first), last)
    else:
        form, usual, extra = _FORMS["tensorflow"], 1, _extra(g, last, model, "same", lite=False)
    kernel = {"released": usual, "1x1": 1, "3x3": 3}[predictor]
    return _detector(g, [*maps, *extra], (first, last), partial(_convolution, kernel=kernel), form, common["classes"])


@register(resolution=320, classes=80)
def ssdlite(
    g: Builder,
    *,
    backbone: Annotated[str, NETWORK] = "mobilenet_v2",
    form: Literal["tensorflow", "torchvision"] = "tensorflow",
    **common: Unpack[Common],
) -> Graph:
    """SSDLite over a classifier: SSD with depthwise separable convolutions in the extra layers and predictors.

    `backbone` and `classes` are those of `ssd`. `form` "tensorflow" has 3 anchors on the first map, 6 on the others,
    and sigmoids; "torchvision" has 6 anchors on each map, a softmax, and extra layers padded the same on every side.

    Raises GraphError if an option is out of range, or the backbone has no map at half the stride of its features.
    """
    model, chosen = parse(backbone), _FORMS[form]
    first, last = _backbone(g, model)
    extra = _extra(g, last, model, chosen.padding, lite=True)
    start = _normalised(g, first) if model.name == _VGG else first
    return _detector(g, [start, last, *extra], (first, last), _separable, chosen, common["classes"])


def _backbone(g: Builder, model: Configuration) -> tuple[Node, Node]:
    """The two maps of the backbone, the larger first."""
    return atrous(g, **model.options) if model.name == _VGG else body_of(g, model)


def _detector(
    g: Builder, maps: list[Node], taps: tuple[Node, Node], predict: _Predict, form: _Form, classes: int
) -> Graph:
    """The network that finds objects in these maps; `taps` are those of the backbone."""
    height, width, _ = g.input.shape
    grids = form.anchors(maps, (height, width))
    coded: list[Node] = []
    scores: list[Node] = []
    for i, (one, grid) in enumerate(zip(maps, grids, strict=True), start=1):
        for name, columns, rows in ((f"predict{i}.code", 4, coded), (f"predict{i}.scores", classes + 1, scores)):
            rows.append(g.rows(predict(g, one, len(grid.sizes) * columns, name), columns, name=f"{name}.rows"))
    detect = Detect(
        anchors=grids, background=True, centre="linear", size="exp", centre_scale=0.1, size_scale=0.2, y_first=False,
        clip=True, across=False, **form.detect,
    )  # fmt: skip
    found = g.detections(detect, g.join(*coded, name="coded"), g.join(*scores, name="class_scores"))
    return g.graph(found, features=taps[1], taps=taps[:1])


def _convolution(g: Builder, x: Node, out: int, name: str, *, kernel: int) -> Node:
    return g.conv(x, out, kernel=kernel, name=f"{name}.conv")


def _separable(g: Builder, x: Node, out: int, name: str) -> Node:
    return g.conv(g.depthwise_bn(x, kernel=3, epsilon=_EPSILON, name=f"{name}.depthwise"), out, name=f"{name}.conv")


def _extra(g: Builder, x: Node, model: Configuration, padding: PaddingLike, *, lite: bool) -> list[Node]:
    """Four more maps, each half the size of the one before: 1x1, then 3x3 or, if `lite`, depthwise 3x3 and 1x1."""
    width = next((model.options[key] for key in _MULTIPLIERS if key in model.options), 1)
    conv = partial(g.conv_bn, epsilon=_EPSILON)
    maps = []
    for i, unscaled in enumerate(_EXTRA, start=1):
        out, half = (max(int(channels * width), _LEAST) for channels in (unscaled, unscaled // 2))
        x = conv(x, half, name=f"extra{i}.reduce")
        if lite:
            x = g.depthwise_bn(x, kernel=3, stride=2, padding=padding, epsilon=_EPSILON, name=f"extra{i}.depthwise")
            x = conv(x, out, name=f"extra{i}.expand")
        else:
            x = conv(x, out, kernel=3, stride=2, padding=padding, name=f"extra{i}.halve")
        maps.append(x)
    return maps


def _paper_extra(g: Builder, x: Node) -> list[Node]:
    """Four more maps, conv8_2 to conv11_2 in the paper; the last two filters are padded only if they do not fit."""
    maps = []
    for i, (reduced, out, halves) in enumerate(_PAPER_EXTRA, start=1):
        x = g.activation(g.conv(x, reduced, name=f"extra{i}.reduce.conv"), "relu", name=f"extra{i}.reduce.act")
        padding = 1 if halves or min(x.shape[:2]) < 3 else 0
        x = g.conv(x, out, kernel=3, stride=2 if halves else 1, padding=padding, name=f"extra{i}.expand.conv")
        x = g.activation(x, "relu", name=f"extra{i}.expand.act")
        maps.append(x)
    return maps


def _normalised(g: Builder, x: Node) -> Node:
    """Each pixel's channels scaled to a length of 20, times a learned factor per channel (section 3.1).

    The normalisation over neighbouring channels spans all of them; its bias only keeps 0 / 0 away.
    """
    size = 2 * x.shape[2] - 1
    x = g.local_response_norm(x, size=size, alpha=size / _L2_SCALE**2, beta=0.5, bias=1e-10, name="normalised.length")
    return g.depthwise(x, kernel=1, bias=False, name="normalised.scale")
