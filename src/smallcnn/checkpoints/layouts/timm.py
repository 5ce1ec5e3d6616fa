"""timm 1.0, timm/models; "timm-tf" stands for its `tf_` networks, TensorFlow's weights under timm's names."""

from collections.abc import Callable, Mapping
from typing import Any

from smallcnn.checkpoints.layouts.layout import INCEPTION, PYTORCH, TENSORFLOW, TORCH, Layout, Rules, conv_bn, stages


def _blocks(repeats: tuple[int, ...], steps: Mapping[str, str]) -> dict[str, Callable[..., str]]:
    """timm's `blocks.<stage>.<place>.<step>` from consecutive block numbers."""
    place = stages(*repeats)

    def rule(step: str) -> Callable[..., str]:
        return lambda i: "blocks.{}.{}.".format(*place(i)) + step

    return {f"block{{i}}.{ours}": rule(theirs) for ours, theirs in steps.items()}


_ENDS = {
    **conv_bn("stem", "conv_stem", "bn1"),
    **conv_bn("last", "conv_head", "bn2"),
    "classifier": "classifier",
}
_SEPARABLE = {**conv_bn("depthwise", "conv_dw", "bn1"), **conv_bn("project", "conv_pw", "bn2")}
_INVERTED = {
    **conv_bn("expand", "conv_pw", "bn1"),
    **conv_bn("depthwise", "conv_dw", "bn2"),
    **conv_bn("project", "conv_pwl", "bn3"),
}
_FIRST = {f"block1.{ours}": f"blocks.0.0.{theirs}" for ours, theirs in _SEPARABLE.items()}

_EXCITE = {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand"}
_V3_STAGES = {"mobilenet_v3_large": (1, 2, 3, 4, 2, 3), "mobilenet_v3_small": (1, 2, 3, 2, 3)}


def _mobilenet_v3(model: str) -> Rules:
    repeats = _V3_STAGES[model]
    last = f"blocks.{len(repeats)}.0"
    return {
        **conv_bn("stem", "conv_stem", "bn1"),
        **_FIRST,
        **_blocks(repeats, {**_INVERTED, **_EXCITE}),
        **conv_bn("last", f"{last}.conv", f"{last}.bn1"),
        "hidden.dense": "conv_head",
        "classifier": "classifier",
    }


_MOBILENET_V4: Rules = {
    **conv_bn("stem", "conv_stem", "bn1"),
    **{
        f"conv{{i}}.{ours}": (lambda i, theirs=theirs: f"blocks.{(i - 1) // 2}.{(i - 1) % 2}.{theirs}")
        for ours, theirs in (("conv", "conv"), ("bn", "bn1"))
    },
    **{
        f"block{{i}}.{ours}.{part}": (
            lambda i, theirs=theirs, part=part: f"blocks.{2 + (i - 1) // 6}.{(i - 1) % 6}.{theirs}.{part}"
        )
        for ours, theirs in (
            ("depthwise1", "dw_start"), ("expand", "pw_exp"), ("depthwise2", "dw_mid"), ("project", "pw_proj"),
        )
        for part in ("conv", "bn")
    },
    **conv_bn("last", "blocks.4.0.conv", "blocks.4.0.bn1"),
    "hidden.dense": "conv_head",
    "hidden.bn": "norm_head",
    "classifier": "classifier",
}  # fmt: skip


def _xception_separable(layer: str, offset: int = 0) -> Callable[..., str]:
    """In timm every block except the first starts with a ReLU, which takes a number."""
    return lambda i, j: f"block{i}.rep.{3 * (j - 1) + (i > 1) + offset}{layer}"


_XCEPTION: Rules = {
    **conv_bn("stem.first", "conv1", "bn1"),
    **conv_bn("stem.second", "conv2", "bn2"),
    **conv_bn("block{i}.shortcut", "block{i}.skip", "block{i}.skipbn"),
    "block{i}.separable{j}.depthwise": _xception_separable(".conv1"),
    "block{i}.separable{j}.pointwise": _xception_separable(".pointwise"),
    "block{i}.separable{j}.bn": _xception_separable("", 1),
    "exit.separable{i}.depthwise": lambda i: f"conv{i + 2}.conv1",
    "exit.separable{i}.pointwise": lambda i: f"conv{i + 2}.pointwise",
    "exit.separable{i}.bn": lambda i: f"bn{i + 2}",
    "classifier": "fc",
}


_LITE_STAGES = (1, 2, 2, 3, 3, 4, 1)
_BICUBIC: dict[str, Any] = {"interpolation": "bicubic"}

LAYOUTS = (
    Layout(
        "timm", "mobilenet_v1",
        {**_ENDS, **_blocks((1, 2, 2, 6, 2), {**_SEPARABLE, **conv_bn("pointwise", "conv_pw", "bn2")})},
        TORCH, PYTORCH, **INCEPTION, **_BICUBIC,
    ),
    Layout(
        "timm", "mobilenet_v2", {**_ENDS, **_FIRST, **_blocks((1, 2, 3, 4, 3, 3, 1), _INVERTED)}, TORCH,
        PYTORCH, **_BICUBIC,
    ),
    *(
        layout
        for model in _V3_STAGES
        for layout in (
            Layout("timm", model, _mobilenet_v3(model), TORCH, PYTORCH, **_BICUBIC),
            Layout("timm-tf", model, _mobilenet_v3(model), TORCH, TENSORFLOW, **INCEPTION),
        )
    ),
    Layout("timm", "mobilenet_v4_conv_small", _MOBILENET_V4, TORCH, PYTORCH, **_BICUBIC),
    Layout(
        "timm", "efficientnet_lite0", {**_ENDS, **_FIRST, **_blocks(_LITE_STAGES, _INVERTED)}, TORCH,
        PYTORCH, **_BICUBIC,
    ),
    Layout(
        "timm-tf", "efficientnet_lite0", {**_ENDS, **_FIRST, **_blocks(_LITE_STAGES, _INVERTED)}, TORCH,
        TENSORFLOW, **INCEPTION, **_BICUBIC,
    ),
    Layout("timm", "xception", _XCEPTION, TORCH, PYTORCH, **INCEPTION, crop=0.8975, **_BICUBIC),
)  # fmt: skip
