"""MobileNet v1: Howard et al. 2017, "MobileNets: Efficient CNNs for Mobile Vision Applications", arXiv 1704.04861.

Input (resolution, resolution, channels); output (classes,) logits. The body is the paper's Table 1 with two readings
taken from the released TensorFlow-Slim code (research/slim/nets/mobilenet_v1.py): the last depthwise layer has stride
1 (the table prints 2, which its own 7x7 output contradicts), and the activation is ReLU6 (the paper says ReLU). Widths
are int(width * channels), at least 8, not rounded otherwise.
"""

from functools import partial
from typing import Annotated, Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common, multiplier
from smallcnn.zoo.registry import register

# output channels, stride                                     Table 1, top to bottom
_BLOCKS = (
    (64, 1),
    (128, 2), (128, 1),
    (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
_SHALLOW = _BLOCKS[:6] + _BLOCKS[11:]  # Table 5: without the five 14x14x512 blocks


@register
def mobilenet_v1(
    g: Builder,
    *,
    width: Annotated[float, multiplier(0.25, 0.5, 0.75, 1, note="the paper uses 0.25, 0.5, 0.75 and 1")] = 1.0,
    variant: Literal["separable", "conv", "shallow"] = "separable",
    small_input: bool = False,
    padding: Literal["same", "symmetric"] = "same",
    epsilon: float = 0.001,
    activation: Literal["relu6", "relu"] = "relu6",
    bias: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """MobileNet v1.

    `width` is the width multiplier alpha. `variant` "conv" puts a full 3x3 convolution in place of every depthwise
    separable one (Table 4), "shallow" omits five blocks (Table 5). `small_input` gives the first layer stride 1,
    for images of 28 to 64 pixels. `padding` is TensorFlow's SAME or, as in PyTorch code, the same on every side;
    `epsilon` is batch norm's: 0.001 in TensorFlow, 1e-5 in timm. `activation` "relu" is the paper's; with `bias` the
    convolutions have a bias before their batch norm: MLPerf Tiny's person detector has both.

    Raises GraphError if an option is out of range.
    """
    conv = partial(g.conv_bn, padding=padding, epsilon=epsilon, activation=activation, bias=bias)
    depthwise = partial(g.depthwise_bn, padding=padding, epsilon=epsilon, activation=activation, bias=bias)
    x = conv(g.input, _scaled(32, width), kernel=3, stride=1 if small_input else 2, name="stem")
    for i, (unscaled, stride) in enumerate(_SHALLOW if variant == "shallow" else _BLOCKS, start=1):
        name, out = f"block{i}", _scaled(unscaled, width)
        if variant == "conv":
            x = conv(x, out, kernel=3, stride=stride, name=name)
        else:  # 3x3 depthwise, then 1x1, each with batch norm and ReLU6 (Figure 3)
            x = depthwise(x, kernel=3, stride=stride, name=f"{name}.depthwise")
            x = conv(x, out, name=f"{name}.pointwise")
    return pooled(g, x, common["classes"], dropout=0.001)  # the released code keeps 0.999


def _scaled(channels: int, width: float) -> int:
    return max(int(channels * width), 8)
