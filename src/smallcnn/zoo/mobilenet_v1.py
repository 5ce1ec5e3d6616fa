"""MobileNet v1: Howard et al. 2017, "MobileNets: Efficient CNNs for Mobile Vision Applications", arXiv 1704.04861.

Input (resolution, resolution, channels); output (classes,) logits. The body is the paper's Table 1 with two readings
taken from the released TensorFlow-Slim code (research/slim/nets/mobilenet_v1.py): the last depthwise layer has stride
1 (the table prints 2, which its own 7x7 output contradicts), and the activation is ReLU6 (the paper says ReLU). Padding
is TensorFlow's SAME, batch norm epsilon 0.001. Widths are int(width * channels), at least 8, not rounded otherwise.
"""

from typing import Literal

from smallcnn.builder import Builder
from smallcnn.errors import GraphError
from smallcnn.graph import Graph, Node
from smallcnn.zoo.registry import plane, register, spell

# output channels, stride                                     Table 1, top to bottom
_BLOCKS = (
    (64, 1),
    (128, 2), (128, 1),
    (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
_SHALLOW = _BLOCKS[:6] + _BLOCKS[11:]  # Table 5: without the five 14x14x512 blocks
_EPSILON = 0.001


@register
def mobilenet_v1(
    *,
    width: float = 1.0,
    variant: Literal["separable", "conv", "shallow"] = "separable",
    small_input: bool = False,
    resolution: int | tuple[int, int] = 224,
    classes: int = 1000,
    channels: int = 3,
) -> Graph:
    """MobileNet v1.

    `width` is the width multiplier alpha. `variant` "conv" puts a full 3x3 convolution in place of every depthwise
    separable one (Table 4), "shallow" leaves out five blocks (Table 5). `small_input` gives the first layer stride 1,
    for pictures of 28 to 64 pixels. `resolution` is one side or (height, width).

    Raises GraphError if an option is out of range.
    """
    if not 0 < width <= 8:
        raise GraphError(f"width must be above 0 and at most 8, not {width:g}; the paper uses 0.25, 0.5, 0.75 and 1")
    g = Builder(input=(*plane(resolution), channels))
    stem_stride = 1 if small_input else 2
    x = g.conv_bn(g.input, _scaled(32, width), kernel=3, stride=stem_stride, epsilon=_EPSILON, name="stem")
    for i, (out, stride) in enumerate(_SHALLOW if variant == "shallow" else _BLOCKS, start=1):
        block = _full if variant == "conv" else _separable
        x = block(g, x, _scaled(out, width), stride, f"block{i}")
    y = g.dropout(g.global_pool(x, name="pool"), 0.001, name="dropout")  # the released code keeps 0.999
    name = spell("mobilenet_v1", {"width": width, "variant": variant, "small_input": small_input})
    return g.graph(g.dense(y, classes, name="classifier"), features=x, name=name)


def _separable(g: Builder, x: Node, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (H/stride, W/stride, out): 3x3 depthwise, then 1x1, each with batch norm and ReLU6 (Figure 3)."""
    x = g.depthwise_bn(x, kernel=3, stride=stride, epsilon=_EPSILON, name=f"{name}.depthwise")
    return g.conv_bn(x, out, epsilon=_EPSILON, name=f"{name}.pointwise")


def _full(g: Builder, x: Node, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (H/stride, W/stride, out): one 3x3 convolution with batch norm and ReLU6."""
    return g.conv_bn(x, out, kernel=3, stride=stride, epsilon=_EPSILON, name=name)


def _scaled(channels: int, width: float) -> int:
    return max(int(channels * width), 8)
