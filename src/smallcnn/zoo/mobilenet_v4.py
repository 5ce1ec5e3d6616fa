"""MobileNetV4: Qin et al. 2024, "MobileNetV4: Universal Models for the Mobile Ecosystem", arXiv 2404.10518.

Input (resolution, resolution, channels); output (classes,) logits. The body is MNv4-Conv-S of the paper's appendix as
released by its authors (TensorFlow Model Garden, official/vision/modeling/backbones/mobilenet.py) and as in timm:
ReLU, no activation after the depthwise convolution before an expansion, the last hidden layer after pooling.

A width multiplier acts as in timm: widths are rounded to multiples of 8, expansions are ratios to the block's input,
the stem never shrinks and the hidden layer keeps its 1280 features.
"""

from functools import partial
from typing import Annotated, Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.zoo.heads import classified
from smallcnn.zoo.options import Common, multiplier
from smallcnn.zoo.registry import register
from smallcnn.zoo.rounding import rounded

# kernel, output channels, stride
_CONVOLUTIONS = ((3, 32, 2), (1, 32, 1), (3, 96, 2), (1, 64, 1))
# kernels of the depthwise convolutions before and after the expansion (0: none), expansion, output channels, stride
_BLOCKS = (
    (5, 5, 3, 96, 2),
    (0, 3, 2, 96, 1), (0, 3, 2, 96, 1), (0, 3, 2, 96, 1), (0, 3, 2, 96, 1),
    (3, 0, 4, 96, 1),
    (3, 3, 6, 128, 2),
    (5, 5, 4, 128, 1),
    (0, 5, 4, 128, 1),
    (0, 5, 3, 128, 1),
    (0, 3, 4, 128, 1), (0, 3, 4, 128, 1),
)  # fmt: skip


@register
def mobilenet_v4_conv_small(
    g: Builder,
    *,
    width: Annotated[float, multiplier(0.35, 0.5, 1, note="timm uses 0.35, 0.5 and 1")] = 1.0,
    small_input: bool = False,
    padding: Literal["same", "symmetric"] = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """MobileNetV4-Conv-Small.

    `width` is a width multiplier, as in timm but not in the paper. `small_input`, for images of 28 to 64 pixels,
    gives the first two convolutions stride 1. `padding` is TensorFlow's SAME or, as in PyTorch code, the same on every
    side; `epsilon` is batch norm's: 0.001 in TensorFlow, 1e-5 in timm.

    Raises GraphError if an option is out of range.
    """
    conv = partial(g.conv_bn, padding=padding, epsilon=epsilon, activation="relu")
    depthwise = partial(g.depthwise_bn, padding=padding, epsilon=epsilon)

    x = conv(g.input, rounded(32 * max(width, 1)), kernel=3, stride=1 if small_input else 2, name="stem")
    for i, (kernel, out, stride) in enumerate(_CONVOLUTIONS, start=1):
        first = small_input and i == 1
        x = conv(x, rounded(out * width), kernel=kernel, stride=1 if first else stride, name=f"conv{i}")
    for i, (before, after, expansion, out, stride) in enumerate(_BLOCKS, start=1):
        name, entry = f"block{i}", x
        if before:
            x = depthwise(x, kernel=before, activation=None, name=f"{name}.depthwise1")
        x = conv(x, rounded(expansion * entry.shape[2]), name=f"{name}.expand")
        if after:
            x = depthwise(x, kernel=after, stride=stride, activation="relu", name=f"{name}.depthwise2")
        x = conv(x, rounded(out * width), activation=None, name=f"{name}.project")
        if stride == 1 and x.shape == entry.shape:
            x = g.add(entry, x, name=f"{name}.add")
    x = conv(x, rounded(960 * width), name="last")
    y = g.dense(g.global_pool(x, name="pool"), 1280, bias=False, name="hidden.dense")
    y = g.activation(g.batch_norm(y, epsilon=epsilon, name="hidden.bn"), "relu", name="hidden.act")
    return classified(g, x, y, common["classes"], dropout=0.2)
