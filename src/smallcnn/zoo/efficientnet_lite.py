"""EfficientNet-Lite0: the released code in tensorflow/tpu, models/official/efficientnet/lite, 2020.

Input (resolution, resolution, channels); output (classes,) logits. It is EfficientNet-B0 (Tan and Le 2019, arXiv
1905.11946, Table 1) with ReLU6 in place of swish and without squeeze-and-excite. The README's 407 M Mult-Adds are 385 M
when only convolutions and dense layers are counted.
"""

from functools import partial
from typing import Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

# expansion, kernel, output channels, repeats, stride of the first          Table 1
_ROWS = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


@register
def efficientnet_lite0(
    g: Builder,
    *,
    small_input: bool = False,
    padding: Literal["same", "symmetric"] = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """EfficientNet-Lite0.

    `small_input`, for images of 28 to 64 pixels, gives the stem and the 24-channel row stride 1. `padding` is
    TensorFlow's SAME or, as in PyTorch code, the same on every side; `epsilon` is batch norm's: 0.001 in TensorFlow,
    1e-5 in timm's own training.

    Raises GraphError if an option is out of range.
    """
    conv = partial(g.conv_bn, padding=padding, epsilon=epsilon)
    depthwise = partial(g.depthwise_bn, padding=padding, epsilon=epsilon)

    x = conv(g.input, 32, kernel=3, stride=1 if small_input else 2, name="stem")
    for i, (expansion, kernel, out, stride) in enumerate(_blocks(small_input), start=1):
        name, entry = f"block{i}", x
        x = conv(x, expansion * x.shape[2], name=f"{name}.expand") if expansion > 1 else x
        x = depthwise(x, kernel=kernel, stride=stride, name=f"{name}.depthwise")
        x = conv(x, out, activation=None, name=f"{name}.project")
        if stride == 1 and x.shape == entry.shape:
            x = g.add(entry, x, name=f"{name}.add")
    x = conv(x, 1280, name="last")
    return pooled(g, x, common["classes"], dropout=0.2)


def _blocks(small_input: bool) -> list[tuple[int, int, int, int]]:
    """Expansion, kernel, output channels and stride of each of the 16 blocks."""
    return [
        (expansion, kernel, out, stride if i == 0 and not (small_input and out == 24) else 1)
        for expansion, kernel, out, repeats, stride in _ROWS
        for i in range(repeats)
    ]
