"""MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3", arXiv 1905.02244.

Input (resolution, resolution, channels); output (classes,) logits. The bodies are the paper's Tables 1 and 2, as
TensorFlow-Slim (research/slim/nets/mobilenet/mobilenet_v3.py), torchvision and timm read them: the squeeze has a
quarter of the expansion's channels, rounded to a multiple of 8, and the small network's 576-channel map has no
squeeze-and-excite, though Table 2 ticks it.

A width multiplier acts as in timm, whose counts at 0.75 are the paper's: widths are rounded to multiples of 8, an
expansion is its table's ratio to the block's input, and neither stem nor the classifier's hidden layer ever shrinks.
"""

from functools import partial
from typing import Annotated, Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import ActivationKind
from smallcnn.zoo import heads
from smallcnn.zoo.options import Allowed, Common, multiplier
from smallcnn.zoo.registry import register
from smallcnn.zoo.rounding import rounded
from smallcnn.zoo.squeeze_excite import squeeze_excite

_Padding = Literal["same", "symmetric"]
_Row = tuple[int, int, int, bool, ActivationKind, int]
_RE: ActivationKind = "relu"
_HS: ActivationKind = "hard_swish"
_WIDTH = multiplier(0.35, 0.5, 0.75, 1, 1.25, note="the paper uses 0.35 to 1.25")
_HIDDEN = Allowed("at least 1", lambda count: count >= 1, (1024, 1280), "public code uses 1024, the paper 1280")

# kernel, expansion, output channels, squeeze-and-excite, activation, stride          Table 1
_LARGE: tuple[_Row, ...] = (
    (3, 16, 16, False, _RE, 1),
    (3, 64, 24, False, _RE, 2),
    (3, 72, 24, False, _RE, 1),
    (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1),
    (5, 120, 40, True, _RE, 1),
    (3, 240, 80, False, _HS, 2),
    (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 480, 112, True, _HS, 1),
    (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2),
    (5, 960, 160, True, _HS, 1),
    (5, 960, 160, True, _HS, 1),
)
# section 6.3: half the channels from the last stride on
_LARGE_REDUCED: tuple[_Row, ...] = (
    *_LARGE[:12],
    (5, 672, 80, True, _HS, 2),
    (5, 480, 80, True, _HS, 1),
    (5, 480, 80, True, _HS, 1),
)
# Table 2
_SMALL: tuple[_Row, ...] = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)


@register
def mobilenet_v3_large(
    g: Builder,
    *,
    width: Annotated[float, _WIDTH] = 1.0,
    minimalistic: bool = False,
    reduced_tail: bool = False,
    small_input: bool = False,
    padding: _Padding = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """MobileNetV3-Large.

    `width` is the width multiplier; the paper uses 0.35 to 1.25. `minimalistic` is Slim's variant for simple hardware:
    ReLU and 3x3 throughout, no squeeze-and-excite. `reduced_tail` halves the channels between the last stride and the
    end, as for the detectors of Table 6. `small_input`, for images of 28 to 64 pixels, gives the stem and
    the first block of stride 2 stride 1. `padding` is TensorFlow's SAME or, as in PyTorch code, the same on every side;
    `epsilon` is batch norm's: 0.001 in TensorFlow and torchvision, 1e-5 in timm.

    Raises GraphError if an option is out of range.
    """
    rows, last, wide = (_LARGE_REDUCED, 480, 640) if reduced_tail else (_LARGE, 960, 1280)
    x = _body(
        g, rows, last, width=width, minimalistic=minimalistic, small_input=small_input, padding=padding,
        epsilon=epsilon,
    )  # fmt: skip
    return heads.hidden(g, x, rounded(wide * max(width, 1)), common["classes"], activation=_RE if minimalistic else _HS)


@register
def mobilenet_v3_small(
    g: Builder,
    *,
    width: Annotated[float, _WIDTH] = 1.0,
    hidden: Annotated[int, _HIDDEN] = 1024,
    minimalistic: bool = False,
    small_input: bool = False,
    padding: _Padding = "same",
    epsilon: float = 0.001,
    **common: Unpack[Common],
) -> Graph:
    """MobileNetV3-Small.

    `hidden` is the width of the layer before the classifier: 1024 in all public implementations (2.5 M parameters),
    1280 in the paper's Table 2 (2.9 M). The other options are those of `mobilenet_v3_large`.

    Raises GraphError if an option is out of range.
    """
    x = _body(
        g, _SMALL, 576, width=width, minimalistic=minimalistic, small_input=small_input, padding=padding,
        epsilon=epsilon,
    )  # fmt: skip
    wide = hidden if width <= 1 else rounded(hidden * width)
    return heads.hidden(g, x, wide, common["classes"], activation=_RE if minimalistic else _HS)


def _body(
    g: Builder,
    rows: tuple[_Row, ...],
    last: int,
    *,
    width: float,
    minimalistic: bool,
    small_input: bool,
    padding: _Padding,
    epsilon: float,
) -> Node:
    """(H, W, channels) -> (H/32, W/32, last * width)."""
    if small_input:
        first = next(i for i, row in enumerate(rows) if row[5] == 2)
        rows = (*rows[:first], (*rows[first][:5], 1), *rows[first + 1 :])
    if minimalistic:
        rows = tuple((3, expansion, out, False, _RE, stride) for _, expansion, out, _, _, stride in rows)
    conv = partial(g.conv_bn, padding=padding, epsilon=epsilon)
    depthwise = partial(g.depthwise_bn, padding=padding, epsilon=epsilon)
    ends = _RE if minimalistic else _HS
    before = 16  # output channels of the previous row
    stem = rounded(before * max(width, 1))

    x = conv(g.input, stem, kernel=3, stride=1 if small_input else 2, activation=ends, name="stem")
    for i, (kernel, expansion, out, excite, activation, stride) in enumerate(rows, start=1):
        name, entry = f"block{i}", x
        if expansion > before:
            x = conv(x, rounded(expansion / before * x.shape[2]), activation=activation, name=f"{name}.expand")
        x = depthwise(x, kernel=kernel, stride=stride, activation=activation, name=f"{name}.depthwise")
        if excite:
            x = squeeze_excite(g, x, rounded(x.shape[2] / 4), gate="hard_sigmoid", name=f"{name}.se")
        x = conv(x, rounded(out * width), activation=None, name=f"{name}.project")
        if stride == 1 and x.shape == entry.shape:
            x = g.add(entry, x, name=f"{name}.add")
        before = out
    return conv(x, rounded(last * width), activation=ends, name="last")
