"""Keras applications, keras_applications: weights of TensorFlow-Slim with their batch norms.

MobileNetV2 has two sets of names: those of the code (mobilenet_v2.py), and those of an earlier version, used by the
published .h5 files. Keras itself is not affected, as it loads by order.
"""

from collections.abc import Callable

from smallcnn.checkpoints.layouts.layout import INCEPTION, KERAS, TENSORFLOW, Layout, Rules, conv_bn

_MOBILENET_V1: Rules = {
    **conv_bn("stem", "conv1", "conv1_bn"),
    **conv_bn("block{i}.depthwise", "conv_dw_{i}", "conv_dw_{i}_bn"),
    **conv_bn("block{i}.pointwise", "conv_pw_{i}", "conv_pw_{i}_bn"),
    "classifier": "conv_preds",
}


def _numbered(name: str) -> Callable[..., str]:
    return lambda i: name.format(i - 1)


def _block_before(step: str) -> Callable[..., str]:
    return lambda i: f"block_{i - 1}_{step}"


_ENDS: Rules = {
    **conv_bn("stem", "Conv1", "bn_Conv1"),
    **conv_bn("last", "Conv_1", "Conv_1_bn"),
    "classifier": "Logits",
}
_MOBILENET_V2: Rules = {
    **_ENDS,
    **conv_bn("block1.depthwise", "expanded_conv_depthwise", "expanded_conv_depthwise_BN"),
    **conv_bn("block1.project", "expanded_conv_project", "expanded_conv_project_BN"),
    **{
        f"block{{i}}.{step}.{ours}": _block_before(f"{step}{theirs}")
        for step in ("expand", "depthwise", "project")
        for ours, theirs in (("conv", ""), ("bn", "_BN"))
    },
}

_IN_FILES: dict[str, Callable[..., str]] = {
    f"block{{i}}.{step}.{ours}": _numbered(f"{theirs}_{step}")
    for step in ("expand", "depthwise", "project")
    for ours, theirs in (("conv", "mobl{0}_conv_{0}"), ("bn", "bn{0}_conv_{0}_bn"))
}

LAYOUTS = (
    Layout("keras", "mobilenet_v1", _MOBILENET_V1, KERAS, TENSORFLOW, **INCEPTION),
    Layout(
        "keras", "mobilenet_v2", _MOBILENET_V2, KERAS, TENSORFLOW, **INCEPTION, renamed={"predictions": "Logits"},
    ),
    Layout("keras", "mobilenet_v2", {**_ENDS, **_IN_FILES}, KERAS, TENSORFLOW, **INCEPTION),
)  # fmt: skip
