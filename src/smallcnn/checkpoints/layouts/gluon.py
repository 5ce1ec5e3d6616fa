"""Gluon's model zoo, mxnet/gluon/model_zoo/vision."""

from collections.abc import Callable

from smallcnn.checkpoints.layouts.layout import GLUON, PYTORCH, Layout, Rules, conv_bn


def _bottleneck(kind: str, number: int) -> Callable[..., str]:
    return lambda i: f"mobilenetv20_features_linearbottleneck{i - 1}_{kind}{number}"


_MOBILENET_V2: Rules = {
    **conv_bn("stem", "mobilenetv20_features_conv0", "mobilenetv20_features_batchnorm0"),
    **{
        f"block{{i}}.{step}.{ours}": _bottleneck(theirs, number)
        for number, step in enumerate(("expand", "depthwise", "project"))
        for ours, theirs in (("conv", "conv"), ("bn", "batchnorm"))
    },
    **conv_bn("last", "mobilenetv20_features_conv1", "mobilenetv20_features_batchnorm1"),
    "classifier": "mobilenetv20_output_pred",
}


def _fire(place: int) -> Callable[..., str]:
    return lambda i: f"squeezenet0_conv{1 + 3 * (i - 2) + place}"


_SQUEEZENET: Rules = {
    "stem.conv": "squeezenet0_conv0",
    **{f"fire{{i}}.{layer}.conv": _fire(n) for n, layer in enumerate(("squeeze", "expand1x1", "expand3x3"))},
    "classifier.conv": "squeezenet0_conv25",
}

LAYOUTS = (
    Layout("gluon", "mobilenet_v2", _MOBILENET_V2, GLUON, {**PYTORCH, "first_expansion": True}),
    Layout("gluon", "squeezenet_1_1", _SQUEEZENET, GLUON),
)
