"""Every network's cost against torch's own counts, on its meta device: shapes only, so that size costs nothing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smallcnn.cost.profile import profile
from smallcnn.module import GraphModule
from zoo_models import CLASSIFIERS, MODELS, SMALL, build

ODD = (97, 65)

# the network's own resolution; the small form's; and planes whose halves are odd
CASES = [
    *((text, None) for text in MODELS),
    *((text, 32) for text in SMALL),
    *((name, ODD) for name in CLASSIFIERS),
]


@pytest.mark.parametrize(("text", "resolution"), CASES, ids=str)
def test_costs_agree_with_torch(text, resolution):
    graph = build(text, resolution=resolution) if resolution else build(text)
    height, width, channels = graph.input_shape
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module = GraphModule(graph).eval()
        maps = module.forward_features(torch.empty(1, channels, height, width))
        logits = module.forward_head(maps)
    cost = profile(graph)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert 2 * cost.mult_adds == counter.get_total_flops()
    assert maps.movedim(1, -1).shape == (1, *graph[graph.features].shape)
    assert logits.shape == (1, *graph.output_shape)
