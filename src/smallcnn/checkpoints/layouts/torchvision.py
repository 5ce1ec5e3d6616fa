"""torchvision 0.29, torchvision/models."""

from collections.abc import Callable

from smallcnn.checkpoints.layouts.layout import INCEPTION, PYTORCH, TORCH, Layout, Rules, conv_bn
from smallcnn.checkpoints.layouts.shufflenet import by_stage, shufflenet_v2

_MOBILENET_V2: Rules = {
    **conv_bn("stem", "features.0.0", "features.0.1"),
    **conv_bn("block1.depthwise", "features.1.conv.0.0", "features.1.conv.0.1"),
    **conv_bn("block1.project", "features.1.conv.1", "features.1.conv.2"),
    **conv_bn("block{i}.expand", "features.{i}.conv.0.0", "features.{i}.conv.0.1"),
    **conv_bn("block{i}.depthwise", "features.{i}.conv.1.0", "features.{i}.conv.1.1"),
    **conv_bn("block{i}.project", "features.{i}.conv.2", "features.{i}.conv.3"),
    **conv_bn("last", "features.18.0", "features.18.1"),
    "classifier": "classifier.1",
}

# MobileNetV3 in torchvision numbers the parts of a block; without an expansion they start with the depthwise layer.
_EXCITED = {"mobilenet_v3_large": (4, 5, 6, 11, 12, 13, 14, 15), "mobilenet_v3_small": (1, 4, 5, 6, 7, 8, 9, 10, 11)}
_BLOCKS = {"mobilenet_v3_large": 15, "mobilenet_v3_small": 11}


def mobilenet_v3(model: str) -> Rules:
    """Rules of "mobilenet_v3_large" or "mobilenet_v3_small"."""
    rules = {**conv_bn("stem", "features.0.0", "features.0.1")}
    for block in range(1, _BLOCKS[model] + 1):
        excited = block in _EXCITED[model]
        steps = [*(["expand"] if block > 1 else []), "depthwise", *(["se"] if excited else []), "project"]
        for number, step in enumerate(steps):
            place = f"features.{block}.block.{number}"
            if step == "se":
                rules |= {f"block{block}.se.reduce": f"{place}.fc1", f"block{block}.se.expand": f"{place}.fc2"}
            else:
                rules |= conv_bn(f"block{block}.{step}", f"{place}.0", f"{place}.1")
    end = f"features.{_BLOCKS[model] + 1}"
    return rules | conv_bn("last", f"{end}.0", f"{end}.1") | {
        "hidden.dense": "classifier.0", "classifier": "classifier.3",
    }  # fmt: skip


_FIRES = {  # fire2 to fire9 among torchvision's `features`, by where its pools are
    "squeezenet_1_0": (3, 4, 5, 7, 8, 9, 10, 12),
    "squeezenet_1_1": (3, 4, 6, 7, 9, 10, 11, 12),
}


def _squeezenet(model: str) -> Rules:
    def fire(layer: str) -> Callable[..., str]:
        return lambda i: f"features.{_FIRES[model][i - 2]}.{layer}"

    layers = ("squeeze", "expand1x1", "expand3x3")
    fires = {f"fire{{i}}.{layer}.conv": fire(layer) for layer in layers}
    return {"stem.conv": "features.0", **fires, "classifier.conv": "classifier.1"}


_ALEXNET: Rules = {
    **{f"conv{i}.conv": f"features.{n}" for i, n in enumerate((0, 3, 6, 8, 10), start=1)},
    "fc6.dense": "classifier.1",
    "fc7.dense": "classifier.4",
    "classifier": "classifier.6",
}
_VGG: Rules = {
    "conv{i}_{j}.conv": lambda i, j: f"features.{(0, 5, 10, 17, 24)[i - 1] + 2 * (j - 1)}",
    "fc6.dense": "classifier.0",
    "fc7.dense": "classifier.3",
    "classifier": "classifier.6",
}


LAYOUTS = (
    Layout("torchvision", "mobilenet_v2", _MOBILENET_V2, TORCH, PYTORCH),
    *(
        Layout(
            "torchvision", model, mobilenet_v3(model), TORCH, {"padding": "symmetric", "epsilon": 0.001}
        )
        for model in _BLOCKS
    ),
    Layout(
        "torchvision", "shufflenet_v2",
        {**shufflenet_v2(by_stage, "branch2", "branch1", "conv1", "conv5"), "classifier": "fc"}, TORCH,
        {"shuffle": "paper"},
    ),
    *(Layout("torchvision", model, _squeezenet(model), TORCH) for model in _FIRES),
    Layout(  # torchvision turns ImageNet's mean and standard deviation into 0.5 itself (transform_input)
        "torchvision", "googlenet", {"classifier": "fc"}, TORCH, {"variant": "torchvision"}, **INCEPTION,
        same_names=True, extra=(r"aux[12]\..*",),
    ),
    Layout("torchvision", "vgg16", _VGG, TORCH),
    Layout("torchvision", "alexnet", _ALEXNET, TORCH, {"variant": "one_tower"}),
)  # fmt: skip
