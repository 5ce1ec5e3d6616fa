"""MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381.

Input (resolution, resolution, channels); output (classes,) logits. The body is the paper's Table 2 (17 bottlenecks; its
text says 19). As in TensorFlow-Slim (research/slim/nets/mobilenet), Keras and torchvision, a block whose expansion is 1
has no expansion convolution, widths are rounded to multiples of 8, and the last 1x1 convolution has 1280 channels or
more: it grows with the width multiplier but never shrinks.
"""

from functools import partial
from typing import Annotated, Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import ActivationKind
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common, multiplier
from smallcnn.zoo.registry import register
from smallcnn.zoo.rounding import rounded

# expansion t, output channels c, repeats n, stride of the first          Table 2
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

_WIDTH = multiplier(0.35, 0.5, 0.75, 1, 1.3, 1.4, note="the paper uses 0.35 to 1.4")


@register
def mobilenet_v2(
    g: Builder,
    *,
    width: Annotated[float, _WIDTH] = 1.0,
    bottleneck: Literal["linear", "nonlinear"] = "linear",
    residual: Literal["bottlenecks", "expansions", "none"] = "bottlenecks",
    first_expansion: bool = False,
    small_input: bool = False,
    padding: Literal["same", "symmetric"] = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """MobileNetV2.

    `width` is the width multiplier; the paper has 0.35 to 1.4. Figure 6 compares `bottleneck` "nonlinear", ReLU6 after
    the projection too, and `residual`: shortcuts between "bottlenecks" (the network), between "expansions" (the wide
    maps of neighbouring blocks, where shapes agree, added after the activation: the paper draws no detail), or "none".
    `first_expansion` gives the first block an expansion convolution despite its factor 1, as in Gluon's weights.
    `small_input`, for images of 28 to 64 pixels, gives the stem and the 24-channel row stride 1. `padding` is
    TensorFlow's SAME or, as in PyTorch code, the same on every side; `epsilon` is batch norm's: 0.001 in TensorFlow,
    1e-5 in torchvision and timm.

    Raises GraphError if an option is out of range.
    """
    conv = partial(g.conv_bn, padding=padding, epsilon=epsilon)
    depthwise = partial(g.depthwise_bn, padding=padding, epsilon=epsilon)
    after: ActivationKind | None = "relu6" if bottleneck == "nonlinear" else None

    x = conv(g.input, rounded(32 * width), kernel=3, stride=1 if small_input else 2, name="stem")
    shortcut = _Shortcuts(g, residual)
    x = shortcut(x, "bottlenecks", "stem")
    for i, (factor, out, stride) in enumerate(_blocks(small_input), start=1):
        name = f"block{i}"
        if factor > 1 or first_expansion:
            x = conv(x, factor * x.shape[2], name=f"{name}.expand")
        x = shortcut(x, "expansions", name)
        x = depthwise(x, kernel=3, stride=stride, name=f"{name}.depthwise")
        shortcut.stride(stride)
        x = conv(x, rounded(out * width), activation=after, name=f"{name}.project")
        x = shortcut(x, "bottlenecks", name)
    x = conv(x, rounded(1280 * max(width, 1)), name="last")
    return pooled(g, x, common["classes"], dropout=0.2)  # the released code keeps 0.8


class _Shortcuts:
    """Adds the map at one place of a block to that of the block before it, if no stride is between and shapes agree."""

    def __init__(self, g: Builder, place: str) -> None:
        self._g, self._place = g, place
        self._before: Node | None = None

    def __call__(self, x: Node, place: str, name: str) -> Node:
        if place != self._place:
            return x
        if self._before and self._before.shape == x.shape:
            x = self._g.add(self._before, x, name=f"{name}.add")
        self._before = x
        return x

    def stride(self, stride: int) -> None:
        """Takes note of a layer between two maps."""
        self._before = self._before if stride == 1 else None


def _blocks(small_input: bool) -> list[tuple[int, int, int]]:
    """Expansion, output channels and stride of each of the 17 blocks."""
    return [
        (factor, out, stride if i == 0 and not (small_input and out == 24) else 1)
        for factor, out, repeats, stride in _ROWS
        for i in range(repeats)
    ]
