import pytest

from public_logits import check_in_order, public_definition
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.efficientnet_lite import efficientnet_lite0
from smallcnn.zoo.registry import parse
from zoo_models import LAST_PLANES


def test_cost():
    cost = profile(efficientnet_lite0())
    assert (cost.parameters, cost.mult_adds) == (4_652_008, 385_187_552)  # timm's definition, counted by torch


def test_the_simple_operators_that_make_it_lite():
    graph = efficientnet_lite0()
    assert {node.op.function for node in graph if isinstance(node.op, ops.Activation)} == {"relu6"}
    assert not any(isinstance(node.op, ops.Scale) for node in graph)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timm-efficientnet_lite0", "efficientnet_lite0:padding=symmetric,epsilon=1e-5"),
        ("timm-tf_efficientnet_lite0", "efficientnet_lite0"),
    ],
)
def test_agrees_with_the_public_definition(name, text):
    public = public_definition(name)
    check_in_order(parse(text).build(resolution=public["resolution"]), public)


@pytest.mark.parametrize(("options", "plane"), LAST_PLANES, ids=str)
def test_last_plane(options, plane):
    graph = efficientnet_lite0(**options)
    assert graph[graph.features].shape == (*plane, 1280)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "valid"}, "padding must be same or symmetric, not 'valid'"),
        ({"epsilon": 0}, "stem.bn: epsilon must be a number above 0, not 0"),
        ({"small_input": 1}, "small_input must be true or false, not 1"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        efficientnet_lite0(**options)
