"""ResNet for CIFAR: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2.

Input (resolution, resolution, channels); output (classes,) logits. With n = 3 blocks per stage it has 20 layers with
weights, 40,551,040 Mult-Adds at 32x32 and 269,722 parameters (the paper: 0.27 M). Shortcuts are the paper's option A,
without parameters: where the plane halves, they take every second pixel and fill the new channels with zeros.
"""

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node

_STAGES = (16, 32, 64)  # channels; planes of 32, 16 and 8
_BLOCKS = 3


def resnet20(*, resolution: int = 32, classes: int = 10, channels: int = 3) -> Graph:
    """ResNet-20: CIFAR-10 test error 8.75 % in the paper's Table 6."""
    g = Builder(input=(resolution, resolution, channels))
    x = g.conv_bn(g.input, _STAGES[0], kernel=3, padding=1, activation="relu", name="stem")
    for stage, out in enumerate(_STAGES, start=1):
        for block in range(1, _BLOCKS + 1):
            x = _residual(g, x, out, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_{block}")
    return g.graph(g.dense(g.global_pool(x, name="pool"), classes, name="classifier"), features=x, name="resnet20")


def _residual(g: Builder, x: Node, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (ceil(H / stride), ceil(W / stride), out): two 3x3 convolutions and the shortcut."""
    y = g.conv_bn(x, out, kernel=3, stride=stride, padding=1, activation="relu", name=f"{name}.first")
    y = g.conv_bn(y, out, kernel=3, padding=1, activation=None, name=f"{name}.second")
    if stride > 1:
        x = g.average_pool(x, kernel=1, stride=stride, name=f"{name}.shortcut")
        zeros = g.clip(x, -1, 0, name=f"{name}.zeros")  # zero everywhere, as x comes from a ReLU
        x = g.concat(x, zeros, name=f"{name}.widened")
    return g.activation(g.add(x, y, name=f"{name}.add"), "relu", name=f"{name}.act")
