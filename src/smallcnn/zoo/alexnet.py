"""AlexNet: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

Input (resolution, resolution, channels); output (classes,) logits. Sections 3.3 to 3.5 and Figure 2: all layers have
biases and ReLU, pools are 3x3 with stride 2, there is no batch norm. The paper's first planes, 55x55, are those of an
image of 227 pixels, though it says 224: here the first layer pads 2 pixels before and 1 after, which gives 55x55 for
224 as well as for 227.
"""

from typing import Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import Padding
from smallcnn.zoo.heads import classified
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

# filters, kernel of the five convolutions
_PAPER = ((96, 11), (256, 5), (384, 3), (384, 3), (256, 3))
_ONE_TOWER = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))
_GROUPS = (1, 2, 1, 2, 2)  # two where a layer reads only the maps of its own GPU (Figure 2)
_NORMALISED = (1, 2)
_POOLED = (1, 2, 5)


@register
def alexnet(
    g: Builder,
    *,
    variant: Literal["grouped", "ungrouped", "one_tower"] = "grouped",
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """AlexNet.

    `variant` "grouped" is the paper's network, in two halves; "ungrouped" joins them; "one_tower" is from "One weird
    trick" (Krizhevsky 2014, arXiv 1404.5997) as in torchvision: fewer filters, no response normalisation, dropout
    before the hidden layers rather than after them. `small_input`, for images of 28 to 64 pixels, gives the first
    layer stride 1 and padding 5. The first dense layer reads the whole last map, so its weights
    fit only this resolution.

    Raises GraphError if an option is unknown or the image is below 64 pixels a side (15 with `small_input`).
    """
    one_tower = variant == "one_tower"
    first: Padding | int = 5 if small_input else 2 if one_tower else ((2, 1), (2, 1))
    x = g.input
    layers = _ONE_TOWER if one_tower else _PAPER
    for i, ((out, kernel), groups) in enumerate(zip(layers, _GROUPS, strict=True), start=1):
        x = g.conv(
            x, out, kernel=kernel, name=f"conv{i}.conv", groups=groups if variant == "grouped" else 1,
            stride=4 if i == 1 and not small_input else 1, padding=first if i == 1 else "symmetric",
        )  # fmt: skip
        x = g.activation(x, "relu", name=f"conv{i}.act")
        if i in _NORMALISED and not one_tower:  # section 3.3: alpha is 1e-4 there, not divided by the size
            x = g.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, bias=2.0, name=f"conv{i}.norm")
        if i in _POOLED:
            x = g.max_pool(x, kernel=3, stride=2, padding=0, name=f"conv{i}.pool")
    y = _hidden(g, g.flatten(x, name="flatten"), one_tower, "fc6")
    y = _hidden(g, y, one_tower, "fc7")
    return classified(g, x, y, common["classes"])


def _hidden(g: Builder, x: Node, dropout_first: bool, name: str) -> Node:
    """(C,) -> (4096,), with dropout of one half."""
    if dropout_first:
        x = g.dropout(x, 0.5, name=f"{name}.dropout")
    x = g.activation(g.dense(x, 4096, name=f"{name}.dense"), "relu", name=f"{name}.act")
    return x if dropout_first else g.dropout(x, 0.5, name=f"{name}.dropout")
