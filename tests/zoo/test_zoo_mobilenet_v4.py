import pytest

from public_logits import check_in_order, public_definition
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.zoo.mobilenet_v4 import mobilenet_v4_conv_small
from zoo_models import LAST_PLANES

# width: (parameters, Mult-Adds at 224) of timm's definitions, counted by torch; the paper has 3.8 M and 0.2 G
COSTS = {1.0: (3_774_024, 186_005_568), 0.5: (2_238_952, 64_741_408), 0.35: (1_905_384, 47_723_040)}


@pytest.mark.parametrize("width", COSTS)
def test_cost(width):
    cost = profile(mobilenet_v4_conv_small(width=width))
    assert (cost.parameters, cost.mult_adds) == COSTS[width]


def test_cost_at_256():
    assert profile(mobilenet_v4_conv_small(resolution=256)).mult_adds == 242_178_048


def test_agrees_with_the_public_definition():
    public = public_definition("timm-mobilenetv4_conv_small")
    graph = mobilenet_v4_conv_small(padding="symmetric", epsilon=1e-5, resolution=public["resolution"])
    check_in_order(graph, public)


@pytest.mark.parametrize(("options", "plane"), LAST_PLANES, ids=str)
def test_last_plane(options, plane):
    graph = mobilenet_v4_conv_small(**options)
    assert graph[graph.features].shape == (*plane, 960)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be above 0 and at most 8, not 0; timm uses 0.35, 0.5 and 1"),
        ({"padding": "valid"}, "padding must be same or symmetric, not 'valid'"),
        ({"epsilon": -1}, "stem.bn: epsilon must be a number above 0, not -1"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        mobilenet_v4_conv_small(**options)
