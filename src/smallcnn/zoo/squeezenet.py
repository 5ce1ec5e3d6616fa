"""SqueezeNet: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.

Input (resolution, resolution, channels); output (classes,) logits. Version 1.0 is the paper's Table 1, version 1.1 the
authors' later release (github.com/forresti/SqueezeNet). All convolutions have biases and ReLU, the last one too, and
there is no batch norm. Windows and padding are torchvision's: no padding of the first layer, pools that round up, and
no border around the last convolution, unlike the released Caffe file of 1.0.
"""

from typing import Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

Bypass = Literal["none", "simple", "complex"]

# squeeze 1x1 filters, expand filters (as many 1x1 as 3x3)           Table 1, fire2 to fire9
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


@register
def squeezenet_1_0(
    g: Builder,
    *,
    bypass: Bypass = "none",
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """SqueezeNet 1.0: 7x7 first layer of 96 filters, pools after it, fire4 and fire8.

    `bypass` "simple" adds the input of fire3, 5, 7 and 9 to their output; "complex" also those of fire2, 4, 6 and 8,
    through a 1x1 convolution (section 6). `small_input`, for images of 28 to 64 pixels: the first layer has stride 1
    and no pool follows it. Table 1's planes are those of resolution 227.
    """
    return _squeezenet(g, 96, 7, (4, 8), bypass, small_input, common["classes"])


@register
def squeezenet_1_1(
    g: Builder,
    *,
    bypass: Bypass = "none",
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """SqueezeNet 1.1: 3x3 first layer of 64 filters, pools after it, fire3 and fire5; options as for 1.0."""
    return _squeezenet(g, 64, 3, (3, 5), bypass, small_input, common["classes"])


def _squeezenet(
    g: Builder,
    stem: int,
    kernel: int,
    pools: tuple[int, int],
    bypass: Bypass,
    small_input: bool,
    classes: int,
) -> Graph:
    x = _conv(g, g.input, stem, "stem", kernel=kernel, stride=1 if small_input else 2, padding=0)
    if not small_input:
        x = g.max_pool(x, kernel=3, stride=2, padding="ceil", name="stem.pool")
    for i, (squeeze, expand) in enumerate(_FIRES, start=2):
        x = _fire(g, x, squeeze, expand, bypass, f"fire{i}")
        if i in pools:
            x = g.max_pool(x, kernel=3, stride=2, padding="ceil", name=f"pool{i}")
    y = _conv(g, g.dropout(x, 0.5, name="dropout"), classes, "classifier")
    return g.graph(g.global_pool(y, name="pool"), features=x)


def _fire(g: Builder, x: Node, squeeze: int, expand: int, bypass: Bypass, name: str) -> Node:
    """(H, W, C) -> (H, W, 2 * expand), Figure 1; a bypass around it as in Figure 2."""
    y = _conv(g, x, squeeze, f"{name}.squeeze")
    ones = _conv(g, y, expand, f"{name}.expand1x1")
    threes = _conv(g, y, expand, f"{name}.expand3x3", kernel=3, padding=1)
    out = g.concat(ones, threes, name=f"{name}.concat")
    if x.shape == out.shape and bypass != "none":
        return g.add(x, out, name=f"{name}.add")
    if bypass == "complex":
        return g.add(g.conv(x, 2 * expand, name=f"{name}.bypass"), out, name=f"{name}.add")
    return out


def _conv(g: Builder, x: Node, out: int, name: str, *, kernel: int = 1, stride: int = 1, padding: int = 0) -> Node:
    """Convolution with bias, then ReLU."""
    x = g.conv(x, out, kernel=kernel, stride=stride, padding=padding, name=f"{name}.conv")
    return g.activation(x, "relu", name=f"{name}.act")
