"""MobileNet v1's comparisons at 32x32: Howard et al. 2017, arXiv 1704.04861, Tables 4 to 7."""

from smallcnn import papers
from smallcnn.study.definition import SMALL, Row, Study

_ANOTHER = "ImageNet top-1, % (another data set)"


def _accuracy(table: str, label: str) -> str:
    (found,) = papers.tables(table)
    return next(row.accuracy for row in found.rows if row.label == label)


def _model(options: str) -> str:
    return f"mobilenet_v1:{options},small_input=true"


_NARROW = _accuracy("mobilenet_v1.t5", "0.75 MobileNet")
_SHALLOW = _accuracy("mobilenet_v1.t5", "Shallow MobileNet")

NARROW_OR_SHALLOW = Study(
    name="narrow-or-shallow",
    title="A narrower or a shallower MobileNet",
    question="At about the same cost, is a network with fewer channels better than one with five fewer blocks?",
    source="Howard et al. 2017 (arXiv 1704.04861), Table 5, at 224x224; here the first layer has stride 1, and the "
    "pair is also run at half its width",
    published=_ANOTHER,
    recipe=SMALL,
    rows=(
        Row("0.75 MobileNet", _model("width=0.75"), 300, _NARROW),
        Row("Shallow MobileNet", _model("variant=shallow"), 260, _SHALLOW),
        Row("0.375 MobileNet", _model("width=0.375"), 730),
        Row("0.5 shallow MobileNet", _model("width=0.5,variant=shallow"), 870),
    ),
)

DEPTHWISE_OR_FULL = Study(
    name="depthwise-or-full",
    title="Depthwise separable or full convolutions",
    question="How much accuracy do depthwise separable convolutions cost at the same widths, and how much do they gain "
    "at the same Mult-Adds?",
    source="Howard et al. 2017 (arXiv 1704.04861), Table 4, at width 1 and 224x224; here width 0.25 with a first layer "
    "of stride 1, plus a separable network as costly as the full one",
    published=_ANOTHER,
    recipe=SMALL,
    rows=(
        Row("Full", _model("width=0.25,variant=conv"), 340, _accuracy("mobilenet_v1.t4", "Conv MobileNet")),
        Row("Separable", _model("width=0.25"), 840, _accuracy("mobilenet_v1.t4", "MobileNet")),
        Row("Separable, as costly", _model("width=0.75"), 300),
    ),
)

# side in the paper, side here: the same fractions, 1, 6/7, 5/7 and 4/7, of 32, rounded
_SIDES = ((224, 32), (192, 27), (160, 23), (128, 18))
# width: images per second at each side
_WIDTHS = {
    0.25: (840, 1100, 1500, 2000),
    0.5: (440, 520, 560, 910),
    0.75: (300, 310, 420, 460),
    1.0: (130, 180, 210, 290),
}

WIDTH_AND_RESOLUTION = Study(
    name="width-and-resolution",
    title="MobileNet's width and resolution",
    question="For a given cost, which width at which resolution is best?",
    source="Howard et al. 2017 (arXiv 1704.04861), the sixteen networks of Figure 4, with the accuracies of the "
    "released checkpoints (tensorflow/models, research/slim, mobilenet_v1.md) at 224, 192, 160 and 128 pixels; here "
    "the same fractions of 32 pixels, with a first layer of stride 1",
    published=_ANOTHER,
    recipe=SMALL,
    rows=tuple(
        Row(
            f"{width:g} at {side}", _model(f"width={width:g}"), speed,
            _accuracy("mobilenet_v1.released", f"{width}_{printed}"), side,
        )
        for width, speeds in _WIDTHS.items()
        for (printed, side), speed in zip(_SIDES, speeds, strict=True)
    ),
)  # fmt: skip
