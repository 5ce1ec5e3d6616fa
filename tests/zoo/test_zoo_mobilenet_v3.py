import pytest

from public_logits import check_in_order, public_definition
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from smallcnn.zoo.registry import parse
from zoo_models import LAST_PLANES

# (parameters, Mult-Adds at 224) of the definitions in torchvision (width 1) and timm (the others), counted by torch.
# Table 3 of the paper: 5.4 M / 219 M, 2.9 M / 66 M; at 0.75 4 M / 155 M, 2.4 M / 44 M
COSTS = {
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "mobilenet_v3_large:width=0.75": (3_993_528, 154_560_624),
    "mobilenet_v3_large:minimalistic=true": (3_924_288, 209_136_704),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "mobilenet_v3_small:width=0.75": (2_041_872, 43_399_344),
    "mobilenet_v3_small:width=0.5": (1_593_224, 24_188_688),
    "mobilenet_v3_small:minimalistic=true": (2_044_736, 52_288_448),
    # 256 columns more: 576 weights and a bias before, 1000 weights after
    "mobilenet_v3_small:hidden=1280": (2_542_856 + 256 * 1577, 56_510_400 + 256 * 1576),
}
NETWORKS = [mobilenet_v3_large, mobilenet_v3_small]


@pytest.mark.parametrize("text", COSTS)
def test_cost(text):
    graph = parse(text).build()
    assert graph.name == text
    cost = profile(graph)
    assert (cost.parameters, cost.mult_adds) == COSTS[text]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("torchvision-mobilenet_v3_large", "mobilenet_v3_large:padding=symmetric"),
        ("torchvision-mobilenet_v3_small", "mobilenet_v3_small:padding=symmetric"),
        ("timm-mobilenetv3_large_100", "mobilenet_v3_large:padding=symmetric,epsilon=1e-5"),
        ("timm-mobilenetv3_small_100", "mobilenet_v3_small:padding=symmetric,epsilon=1e-5"),
        ("timm-tf_mobilenetv3_large_100", "mobilenet_v3_large"),
    ],
)
def test_agrees_with_the_public_definition(name, text):
    public = public_definition(name)
    check_in_order(parse(text).build(resolution=public["resolution"]), public)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("options", "plane"), LAST_PLANES, ids=str)
def test_last_plane(network, options, plane):
    graph = network(**options)
    assert graph[graph.features].shape == (*plane, {mobilenet_v3_large: 960, mobilenet_v3_small: 576}[network])


@pytest.mark.parametrize("network", NETWORKS)
def test_minimalistic_has_simple_layers_only(network):
    graph = network(minimalistic=True)
    assert {node.op.kernel for node in graph if isinstance(node.op, ops.Conv)} == {(1, 1), (3, 3)}
    assert {node.op.function for node in graph if isinstance(node.op, ops.Activation)} == {"relu"}
    assert not any(isinstance(node.op, ops.Scale) for node in graph)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_width_above_1_widens_stem_and_hidden_layer_too(network):
    wide, usual = network(width=1.25), network()
    assert wide["stem.conv"].shape[2] == 24  # 20, rounded
    assert wide["hidden.dense"].shape[0] == 1.25 * usual["hidden.dense"].shape[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be above 0 and at most 8, not 0; the paper uses 0.35 to 1.25"),
        ({"width": float("nan")}, "width must be above 0 and at most 8, not nan; .*"),
        ({"hidden": 0}, "hidden must be at least 1, not 0; public code uses 1024, the paper 1280"),
        ({"hidden": 10**10}, "hidden.dense: output features must be a whole number .*"),
        ({"minimalistic": 1}, "minimalistic must be true or false, not 1"),
        ({"padding": "valid"}, "padding must be same or symmetric, not 'valid'"),
        ({"epsilon": 0}, "stem.bn: epsilon must be a number above 0, not 0"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        mobilenet_v3_small(**options)
