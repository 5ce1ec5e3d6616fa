"""ShuffleNet v1: Zhang et al. 2017, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile ...".

arXiv 1707.01083, Table 1 and Figure 2. Input (resolution, resolution, channels); output (classes,) logits. The released
code (github.com/megvii-model/ShuffleNet-Series, ShuffleNetV1) settles what the paper leaves open: the width of the
first layer at scales 0.5, 1.5 and 2, a padding of 1 on every side, and an average pool that counts its padding. One
difference from the release: the classifier has a bias.
"""

from typing import Annotated, Literal, Unpack

from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common, multiplier, one_of
from smallcnn.zoo.registry import register
from smallcnn.zoo.squeeze_excite import squeeze_excite

Shuffling = Literal["paper", "released", "none"]

_STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # channels by groups, Table 1; stages 3 and 4 double them
_UNITS = (4, 8, 4)  # of stages 2, 3 and 4
_SE_RATIO = 16
_SCALE = multiplier(0.25, 0.5, 1, 1.5, 2, note="the paper uses 0.25, 0.5, 1, 1.5 and 2")


@register
def shufflenet_v1(
    g: Builder,
    *,
    groups: Annotated[int, one_of(*_STAGE2)] = 3,
    scale: Annotated[float, _SCALE] = 1.0,
    shuffle: Shuffling = "paper",
    se: bool = False,
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """ShuffleNet v1.

    `groups` (of the 1x1 convolutions) is 1, 2, 3, 4 or 8. `scale` multiplies the channels of the stages, which must
    still divide into the groups. `shuffle` "released" shuffles where and as the released code does: after the depthwise
    convolution, by the inverse permutation; "none" omits it (Table 3). `se` adds squeeze-and-excitation (Table 5),
    which the paper does not describe further. Our reading: a ratio of 16, at the end of every unit, before the addition
    or after the concatenation, which costs the 527 M printed for scale 2. `small_input`, for images of 28 to 64
    pixels: the first layer has stride 1 and no pool follows it.

    Raises GraphError, naming the nearest scales that work, if the channels do not divide.
    """
    width = _stage2(groups, scale)
    x = g.conv_bn(
        g.input, _stem(groups, scale), kernel=3, stride=1 if small_input else 2, padding=1, activation="relu",
        name="stem",
    )  # fmt: skip
    if not small_input:
        x = g.max_pool(x, kernel=3, stride=2, padding=1, name="stem.pool")
    for stage, units in enumerate(_UNITS, start=2):
        out = width * 2 ** (stage - 2)
        for unit in range(1, units + 1):
            first = 1 if (stage, unit) == (2, 1) else groups  # section 3.2: so few channels are not grouped
            stride = 2 if unit == 1 else 1
            x = _unit(g, x, out, first, groups, stride, shuffle, se, f"stage{stage}_{unit}")
    return pooled(g, x, common["classes"])


def _unit(
    g: Builder, x: Node, out: int, first: int, groups: int, stride: int, shuffle: Shuffling, se: bool, name: str
) -> Node:
    """(H, W, C) -> (H / stride, W / stride, out), Figure 2(b) for stride 1 and 2(c) for 2.

    `first` and `groups` are the groups of its first and second 1x1 convolution.
    """
    channels, bottleneck = x.shape[2], out // 4
    y = g.conv_bn(x, bottleneck, groups=first, activation="relu", name=f"{name}.reduce")
    if shuffle == "paper" and groups > 1:
        y = g.shuffle(y, groups, name=f"{name}.shuffle")
    y = g.depthwise_bn(y, kernel=3, stride=stride, padding=1, activation=None, name=f"{name}.depthwise")
    if shuffle == "released" and groups > 1:
        y = g.shuffle(y, bottleneck // groups, name=f"{name}.shuffle")
    if stride == 1:
        y = g.conv_bn(y, out, groups=groups, activation=None, name=f"{name}.expand")
        y = _excited(g, y, name) if se else y
        return g.activation(g.add(x, y, name=f"{name}.add"), "relu", name=f"{name}.act")
    y = g.conv_bn(y, out - channels, groups=groups, activation="relu", name=f"{name}.expand")
    x = g.average_pool(x, kernel=3, stride=2, padding=1, count_padding=True, name=f"{name}.pool")
    y = g.concat(x, y, name=f"{name}.concat")
    return _excited(g, y, name) if se else y


def _excited(g: Builder, x: Node, name: str) -> Node:
    return squeeze_excite(g, x, max(x.shape[2] // _SE_RATIO, 1), gate="sigmoid", name=f"{name}.se")


def _stem(groups: int, scale: float) -> int:
    """24 channels, 48 from scale 2 on, 12 below 1 (below 0.5 and between 0.5 and 1 that is our choice).

    Rounded up to a multiple of the groups, as the first unit's grouped convolution supplies the remaining channels.
    """
    channels = 12 if scale < 1 else 24 if scale < 2 else 48
    return -(-channels // groups) * groups


def _stage2(groups: int, scale: float) -> int:
    """Channels of stage 2: whole (the scale may be rounded to six digits), their quarter a multiple of `groups`."""
    exact = _STAGE2[groups] * scale
    if _fits(groups, scale):
        return round(exact)
    step = 4 * groups
    least = (_stem(groups, scale) // step + 1) * step
    below = int(exact) // step * step
    nearest = sorted({max(width, least) for width in (below, below + step)})
    scales = " or ".join(f"{w / _STAGE2[groups]:.6g} ({w}/{2 * w}/{4 * w} channels)" for w in nearest)
    others = [str(other) for other in _STAGE2 if _fits(other, scale)]
    raise GraphError(
        f"groups {groups} at scale {scale:g} gives stage 2 {exact:g} channels; it needs a multiple of {step}, at least "
        f"{least}: try scale {scales}" + (f", or groups {' or '.join(others)}" if others else "")
    )


def _fits(groups: int, scale: float) -> bool:
    exact = _STAGE2[groups] * scale
    width = round(exact)
    return abs(exact - width) < 0.01 and width % (4 * groups) == 0 and width > _stem(groups, scale)
