"""torchvision 0.29, torchvision/models/detection: ssd300_vgg16 and ssdlite320_mobilenet_v3_large.

Scores there have a column for each of COCO's 90 category numbers, of which 80 are in use, and one for the background.
"""

from dataclasses import replace

import numpy as np

from smallcnn.checkpoints.layouts.layout import INCEPTION, TORCH, Layout, Rules
from smallcnn.checkpoints.layouts.torchvision import mobilenet_v3
from smallcnn.ir.graph import Graph, Node

_L2_SCALE = 20.0  # of the first map: part of the network here, of the factors there
_FACTORS = "normalised.scale"
_BRANCH = {"code": "regression_head", "scores": "classification_head"}


def _tensors(graph: Graph, node: Node) -> dict[str, str]:
    return {"weight": "scale_weight"} if node.name == _FACTORS else TORCH.tensors(graph, node)


def _ours(graph: Graph, node: Node, key: str, value: np.ndarray) -> np.ndarray:
    """The factors of the first map are a vector there."""
    if node.name == _FACTORS and value.ndim == 1:
        return value.reshape(-1, 1, 1, 1) / _L2_SCALE
    return TORCH.ours(graph, node, key, value)


def _head(branch: str) -> str:
    return f"head.{_BRANCH[branch]}.module_list"


_SSD: Rules = {
    **{
        f"conv{i}_{j}.conv": f"backbone.features.{first + 2 * (j - 1)}"
        for i, first, count in ((1, 0, 2), (2, 5, 2), (3, 10, 3), (4, 17, 3))
        for j in range(1, count + 1)
    },
    "conv5_{j}.conv": lambda j: f"backbone.extra.0.{2 * j - 1}",
    "fc6.conv": "backbone.extra.0.7.1",
    "fc7.conv": "backbone.extra.0.7.3",
    "extra{i}.reduce.conv": "backbone.extra.{i}.0",
    "extra{i}.expand.conv": "backbone.extra.{i}.2",
    _FACTORS: "backbone",
    **{f"predict{i}.{branch}.conv": f"{_head(branch)}.{i - 1}" for branch in _BRANCH for i in range(1, 7)},
}


def _from_block_13(layer: str) -> str:
    """The place in the backbone of a layer of the classifier: its second part starts within block 13."""
    block, _, rest = layer.removeprefix("features.").partition(".")
    number = int(block)
    if number < 13:
        return f"backbone.features.0.{number}.{rest}"
    if number > 13:
        return f"backbone.features.1.{number - 13}.{rest}"
    step = rest.removeprefix("block.")
    return f"backbone.features.0.13.{step[2:]}" if step.startswith("0.") else f"backbone.features.1.0.{step}"


def _numbered(place: str, layer: str) -> dict[str, str]:
    """Rules for the convolution and the batch norm of a layer, from 1 here and from 0 there."""
    return {
        f"{place.format(i=i)}.{kind}": f"{layer.format(i=i - 1)}.{part}"
        for i in range(1, 7)
        for part, kind in enumerate(("conv", "bn"))
    }


_SSDLITE: Rules = {
    **{
        ours: _from_block_13(theirs)
        for ours, theirs in mobilenet_v3("mobilenet_v3_large").items()
        if isinstance(theirs, str) and theirs.startswith("features.")
    },
    **_numbered("extra{i}.reduce", "backbone.extra.{i}.0"),
    **_numbered("extra{i}.depthwise", "backbone.extra.{i}.1"),
    **_numbered("extra{i}.expand", "backbone.extra.{i}.2"),
    **{
        rule: layer
        for branch in _BRANCH
        for rule, layer in _numbered(f"predict{{i}}.{branch}.depthwise", f"{_head(branch)}.{{i}}.0").items()
    },
    **{f"predict{i}.{branch}.conv": f"{_head(branch)}.{i - 1}.1" for branch in _BRANCH for i in range(1, 7)},
}

LAYOUTS = (
    Layout(
        "torchvision", "ssd", _SSD, replace(TORCH, tensors=_tensors, ours=_ours), {"backbone": "vgg16"},
        mean=(0.48235, 0.45882, 0.40784), std=(1 / 255, 1 / 255, 1 / 255),
    ),
    Layout(
        "torchvision", "ssdlite", _SSDLITE, TORCH,
        {"backbone": "mobilenet_v3_large:reduced_tail=true,padding=symmetric", "form": "torchvision"}, **INCEPTION,
    ),
)  # fmt: skip
