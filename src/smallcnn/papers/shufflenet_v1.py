"""Zhang et al. 2017, "ShuffleNet: An Extremely Efficient CNN for Mobile Devices", arXiv 1707.01083.

The paper's complexity, MFLOPs, is Mult-Adds. The rounded widths of 0.5x and 0.25x are not published for any
group number that does not divide them.
"""

from smallcnn.papers import count
from smallcnn.papers.classics import ALEXNET_720, VGG_15300
from smallcnn.papers.table import (
    TOP1_ERROR,
    Figure,
    Row,
    Table,
    convention,
    mult_adds,
    not_counted,
    remark,
    unclear,
)

# groups: channels of stages 2, 3 and 4, complexity
_TABLE_1 = {
    1: (("144", "288", "576"), "143 M"),
    2: (("200", "400", "800"), "140 M"),
    3: (("240", "480", "960"), "137 M"),
    4: (("272", "544", "1088"), "133 M"),
    8: (("384", "768", "1536"), "137 M"),
}
# scale: complexity of the line, top-1 error by groups
_TABLE_2 = {
    1: ("140 M", {1: "33.6", 2: "32.7", 3: "32.6", 4: "32.8", 8: "32.4"}),
    0.5: ("38 M", {1: "45.1", 2: "44.4", 3: "43.2", 4: "41.6", 8: "42.3"}),
    0.25: ("13 M", {1: "57.1", 2: "56.8", 3: "55.0", 4: "54.2", 8: "52.7"}),
}
_UNPUBLISHED = {(0.5, 2), (0.25, 2), (0.25, 4)}
_SCALE_OF_TABLE_4 = {(0.5, 4): "0.529412"}  # 576 channels in stage 4, Table 4
_LINE = convention("one figure for all groups at this scale")
_WIDTH_576 = convention("counted with Table 4's 576 channels in stage 4; half of 1088 does not divide into 4 groups")
_STEM = unclear("the width of its first layer is not published: counted here with 16 channels; 8 would give 12.4 M")
_SE = remark("agrees with a squeeze ratio of 16, chosen here; the paper does not print one")
_GOOGLENET = convention("GoogLeNet's own '1.5 billion', which counts its first layer as separable")
_OTHER = remark("built from other units in the paper, which does not tabulate their stages")
_ROUNDED = remark("its groups do not divide the scaled widths; the widths used instead are not published")

_NOTES = {(0.5, 4): _WIDTH_576, (0.25, 8): _STEM}


def _spelled(scale: float, groups: int) -> str:
    if (scale, groups) in _UNPUBLISHED:
        return ""
    return f"shufflenet_v1:groups={groups},scale={_SCALE_OF_TABLE_4.get((scale, groups), scale)}"


def _stage(number: int) -> count.Count:
    """Channels of a stage."""
    return lambda network: network.layers(f"stage{number}_1")[-1].output_shape[2]


def _architecture(groups: int) -> Row:
    channels, complexity = _TABLE_1[groups]
    stages = tuple(Figure(f"stage {i}", printed, _stage(i)) for i, printed in enumerate(channels, start=2))
    return Row(f"g = {groups}", (*stages, Figure("complexity", complexity, count.body_mult_adds)), _spelled(1, groups))


def _complexity(printed: str) -> tuple[Figure, ...]:
    return not_counted({"Mult-Adds": printed}, _OTHER)


def _scaled(scale: float, groups: int) -> Row:
    complexity, errors = _TABLE_2[scale]
    model = _spelled(scale, groups)
    figure = (
        mult_adds(complexity, _NOTES.get((scale, groups)))
        if model
        else not_counted({"Mult-Adds": complexity}, _ROUNDED)[0]
    )
    return Row(f"ShuffleNet {scale:g}x (g={groups})", (figure,), model, accuracy=errors[groups])


_1X_G8, _2X_G3 = _spelled(1, 8), _spelled(2, 3)
_05X_G4 = _spelled(0.5, 4)
_SHALLOW = unclear("half the units would cost 22 M; the widths of this network are not published")

TABLES = (
    Table("shufflenet_v1.t1", "ShuffleNet architecture: channels, complexity without the classifier", tuple(
        _architecture(groups) for groups in _TABLE_1
    )),
    Table("shufflenet_v1.t2", "Groups at three scales", tuple(
        _scaled(scale, groups) for scale, (_, errors) in _TABLE_2.items() for groups in errors
    ), TOP1_ERROR, _LINE),
    Table("shufflenet_v1.t4", "Structures at equal complexity", (
        Row("VGG-like", _complexity("140 M"), accuracy="50.7"),
        Row("ResNet", _complexity("140 M"), accuracy="37.3"),
        Row("Xception-like", _complexity("140 M"), accuracy="33.6"),
        Row("ResNeXt", _complexity("140 M"), accuracy="33.3"),
        Row("ShuffleNet 1x (g=8)", (mult_adds("140 M"),), _1X_G8, accuracy="32.4"),
        Row("ResNet", _complexity("38 M"), accuracy="48.8"),
        Row("Xception-like", _complexity("38 M"), accuracy="45.1"),
        Row("ResNeXt", _complexity("38 M"), accuracy="46.0"),
        Row("ShuffleNet 0.5x (g=4)", (mult_adds("38 M", _WIDTH_576),), _05X_G4, accuracy="41.6"),
        Row("ResNet", _complexity("13 M"), accuracy="63.7"),
        Row("Xception-like", _complexity("13 M"), accuracy="57.1"),
        Row("ResNeXt", _complexity("13 M"), accuracy="65.2"),
        Row("ShuffleNet 0.25x (g=8)", (mult_adds("13 M", _STEM),), _spelled(0.25, 8), accuracy="52.7"),
    ), TOP1_ERROR, _LINE),
    Table("shufflenet_v1.t5", "ShuffleNet against MobileNet", (
        Row("1.0 MobileNet-224", (mult_adds("569 M"),), "mobilenet_v1", accuracy="29.4"),
        Row("ShuffleNet 2x (g=3)", (mult_adds("524 M"),), _2X_G3, accuracy="26.3"),
        Row("ShuffleNet 2x (with SE, g=3)", (mult_adds("527 M", _SE),), f"{_2X_G3},se=true", accuracy="24.7"),
        Row("0.75 MobileNet-224", (mult_adds("325 M"),), "mobilenet_v1:width=0.75", accuracy="31.6"),
        Row("ShuffleNet 1.5x (g=3)", (mult_adds("292 M"),), _spelled(1.5, 3), accuracy="28.5"),
        Row("0.5 MobileNet-224", (mult_adds("149 M"),), "mobilenet_v1:width=0.5", accuracy="36.3"),
        Row("ShuffleNet 1x (g=8)", (mult_adds("140 M"),), _1X_G8, accuracy="32.4"),
        Row("0.25 MobileNet-224", (mult_adds("41 M"),), "mobilenet_v1:width=0.25", accuracy="49.4"),
        Row("ShuffleNet 0.5x (g=4)", (mult_adds("38 M", _WIDTH_576),), _05X_G4, accuracy="41.6"),
        Row("ShuffleNet 0.5x (shallow, g=3)", not_counted({"Mult-Adds": "40 M"}, _SHALLOW), accuracy="42.8"),
    ), TOP1_ERROR, _LINE),
    Table("shufflenet_v1.t6", "ShuffleNet compared with popular networks", (
        Row("VGG-16", (mult_adds("15300 M", VGG_15300),), "vgg16", accuracy="28.5"),
        Row("ShuffleNet 2x (g=3)", (mult_adds("524 M"),), _2X_G3, accuracy="26.3"),
        Row("GoogleNet", (mult_adds("1500 M", _GOOGLENET),), "googlenet", accuracy="31.3"),
        Row("ShuffleNet 1x (g=8)", (mult_adds("140 M"),), _1X_G8, accuracy="32.4"),
        Row("AlexNet", (mult_adds("720 M", ALEXNET_720),), "alexnet", accuracy="42.8"),
        Row("SqueezeNet", (mult_adds("833 M"),), "squeezenet_1_0", 227, accuracy="42.5"),
        Row("ShuffleNet 0.5x (g=4)", (mult_adds("38 M", _WIDTH_576),), _05X_G4, accuracy="41.6"),
    ), TOP1_ERROR, _LINE),
)  # fmt: skip
