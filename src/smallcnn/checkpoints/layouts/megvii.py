"""megvii-model/ShuffleNet-Series, the authors' code; and a backbone of it in dog-qiuqiu/FastestDet."""

from collections.abc import Callable
from typing import Any

from smallcnn.checkpoints.layouts.layout import TORCH, Layout, Rules, conv_bn
from smallcnn.checkpoints.layouts.shufflenet import by_feature, by_stage, shufflenet_v2


def _shufflenet_v1_unit(end: str) -> Callable[..., str]:
    return lambda i, j: f"features.{(0, 4, 12)[i - 2] + j - 1}.{end}"


_SHUFFLENET_V1: Rules = {
    **conv_bn("stem", "first_conv.0", "first_conv.1"),
    **{
        f"stage{{i}}_{{j}}.{ours}": _shufflenet_v1_unit(theirs)
        for step, conv, bn in (
            ("reduce", "branch_main_1.0", "branch_main_1.1"),
            ("depthwise", "branch_main_1.3", "branch_main_1.4"),
            ("expand", "branch_main_2.0", "branch_main_2.1"),
        )
        for ours, theirs in conv_bn(step, conv, bn).items()
    },
    "classifier": "classifier.0",
}

_BLUE_FIRST: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "blue_first": True}
_BYTES = (1 / 255,) * 3  # pixels in 0..255

LAYOUTS = (
    Layout(
        "megvii", "shufflenet_v1", _SHUFFLENET_V1, TORCH, {"shuffle": "released"}, **_BLUE_FIRST, std=_BYTES,
        zero=("classifier.bias",),
    ),
    Layout(
        "megvii", "shufflenet_v2",
        {**shufflenet_v2(by_feature, "branch_main", "branch_proj", "first_conv", "conv_last"),
         "classifier": "classifier.0"},
        TORCH, {"shuffle": "released"}, **_BLUE_FIRST, std=_BYTES,
    ),
    Layout(  # takes pixels in 0..1
        "fastestdet", "shufflenet_v2",
        {**shufflenet_v2(by_stage, "branch_main", "branch_proj", "first_conv", "conv_last"),
         "classifier": "classifier.0"},
        TORCH, {"shuffle": "released"}, **_BLUE_FIRST, std=(1.0, 1.0, 1.0),
    ),
)  # fmt: skip
