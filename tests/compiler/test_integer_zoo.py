"""Every network of the zoo, quantized and compiled for each level that this machine runs: bit for bit the definition.

Once with every result as an output, so that each layer is compared, and once as users compile it, so that kernels are
fused. Marked `long`: about a minute for each.
"""

import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from dataclasses import replace

from compiled_networks import check
from networks import every_result
from quantized_networks import on_noise
from smallcnn import zoo
from smallcnn.compiler import targets

SMALL = {
    "mobilenet_v1": "width=0.25",
    "mobilenet_v2": "width=0.35",
    "mobilenet_v3_large": "width=0.35",
    "mobilenet_v3_small": "width=0.35",
    "mobilenet_v4_conv_small": "width=0.35",
    "effnet": "width=0.5",
    "googlenet": "variant=torchvision",
    "nasnet_a_mobile": "cells=1,filters=96",
    "shufflenet_v1": "scale=0.25",
    "shufflenet_v2": "scale=0.5",
}
"""Options that make a network small and keep all its operators with an integer form."""
NAMES = [name for name in zoo.names() if name != "alexnet"]  # whose normalisation over channels stays in float
RESOLUTION = 64
LEVELS = [name for name in targets.names() if targets.runs_here(targets.parse(name))]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", LEVELS)
def test_every_layer_of_every_network(name, target):
    model = on_noise(f"{name}:{SMALL[name]}" if name in SMALL else name, RESOLUTION)
    check(replace(model, graph=every_result(model.graph)), target=target, planned_for=1)
    check(model, target=target)
