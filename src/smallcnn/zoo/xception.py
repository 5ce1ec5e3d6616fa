"""Xception: Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357.

Input (resolution, resolution, channels), 299 in the paper; output (classes,) logits. The body is the paper's Figure 5.
A separable convolution is 3x3 depthwise, 1x1, batch norm, with nothing in between (Figure 10). As in the author's Keras
code, the two convolutions of the stem are not padded and everything else is padded SAME, batch norm epsilon 0.001.
Dropout of 0.5 before the classifier (section 4). Table 3 counts 22,855,952 parameters, the classifier included.
"""

from typing import Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

# outputs of the separable convolutions, whether the block halves the plane        Figure 5, top to bottom
_BLOCKS = (
    ((128, 128), True), ((256, 256), True), ((728, 728), True),  # entry flow
    *[((728, 728, 728), False)] * 8,  # middle flow
    ((728, 1024), True),  # exit flow
)  # fmt: skip
_EXIT = (1536, 2048)
_Padding = Literal["same", "symmetric"]


@register(resolution=299)
def xception(
    g: Builder,
    *,
    small_input: bool = False,
    padding: _Padding = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """Xception.

    `small_input` gives the first layer stride 1, for images of 28 to 64 pixels. `padding` is TensorFlow's SAME or
    half the kernel on every side, and `epsilon` that of batch norm; PyTorch's public weights need "symmetric" and
    0.00001.

    Raises GraphError if an option is out of range or the image is below 7 pixels a side (5 with `small_input`).
    """
    stride = 1 if small_input else 2
    x = g.conv_bn(
        g.input, 32, kernel=3, stride=stride, padding=0, epsilon=epsilon, activation="relu", name="stem.first"
    )
    x = g.conv_bn(x, 64, kernel=3, padding=0, epsilon=epsilon, activation="relu", name="stem.second")
    for i, (outs, halves) in enumerate(_BLOCKS, start=1):
        x = _block(g, x, outs, halves, i > 1, padding, epsilon, f"block{i}")
    for i, out in enumerate(_EXIT, start=1):
        x = _separable(g, x, out, padding, epsilon, f"exit.separable{i}")
        x = g.activation(x, "relu", name=f"exit.separable{i}.act")
    return pooled(g, x, common["classes"], dropout=0.5)


def _block(
    g: Builder,
    x: Node,
    outs: tuple[int, ...],
    halves: bool,
    starts_active: bool,
    pad: _Padding,
    epsilon: float,
    name: str,
) -> Node:
    """(H, W, C) -> (H, W, C), or (ceil(H/2), ceil(W/2), outs[-1]) with a projected shortcut; ReLU before each layer."""
    shortcut = x
    if halves:
        shortcut = g.conv_bn(x, outs[-1], stride=2, epsilon=epsilon, activation=None, name=f"{name}.shortcut")
    for i, out in enumerate(outs, start=1):
        if i > 1 or starts_active:
            x = g.activation(x, "relu", name=f"{name}.separable{i}.act")
        x = _separable(g, x, out, pad, epsilon, f"{name}.separable{i}")
    if halves:
        x = g.max_pool(x, kernel=3, stride=2, padding=pad, name=f"{name}.pool")
    return g.add(x, shortcut, name=f"{name}.add")


def _separable(g: Builder, x: Node, out: int, pad: _Padding, epsilon: float, name: str) -> Node:
    """(H, W, C) -> (H, W, out): 3x3 depthwise, 1x1, batch norm."""
    x = g.depthwise(x, kernel=3, padding=pad, bias=False, name=f"{name}.depthwise")
    x = g.conv(x, out, bias=False, name=f"{name}.pointwise")
    return g.batch_norm(x, epsilon=epsilon, name=f"{name}.bn")
