import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.alexnet import alexnet

TOTALS = {  # Mult-Adds, parameters
    "grouped": (724_406_816, 60_965_224),  # the paper's "60 million"; "720 M" in ShuffleNet's Table 6
    "ungrouped": (1_135_256_096, 62_378_344),
    "one_tower": (714_188_480, 61_100_840),  # torchvision's
}


@pytest.mark.parametrize("variant", TOTALS)
def test_totals(variant):
    cost = profile(alexnet(variant=variant))
    assert (cost.mult_adds, cost.parameters) == TOTALS[variant]


def test_layer_by_layer():
    """Section 3.5: kernels 96 of 11x11x3, 256 of 5x5x48, 384 of 3x3x256, 384 of 3x3x192, 256 of 3x3x192."""
    weights = alexnet().weights
    shapes = [weight.shape for name, weight in weights.items() if name.endswith("weight")]
    assert shapes == [
        (96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3),
        (4096, 6 * 6 * 256), (4096, 4096), (1000, 4096),
    ]  # fmt: skip


@pytest.mark.parametrize("resolution", [224, 227])
def test_neurons_of_the_paper(resolution):
    """Figure 2's caption, but for its first number, 253,440, which contradicts the 55x55 maps of 48 + 48 it draws."""
    graph = alexnet(resolution=resolution)
    maps = [node.shape for node in graph if isinstance(node.op, ops.Conv)]
    assert [h * w * c for h, w, c in maps] == [55 * 55 * 96, 186_624, 64_896, 64_896, 43_264]


def test_response_normalisation_of_section_3_3():
    """k = 2, n = 5, alpha = 1e-4, beta = 0.75, where the operator divides alpha by n; after ReLU, before the pool."""
    graph = alexnet()
    norms = [node for node in graph if isinstance(node.op, ops.LocalResponseNorm)]
    assert [node.inputs for node in norms] == [("conv1.act",), ("conv2.act",)]
    assert [graph.consumers[node.name][0].name for node in norms] == ["conv1.pool", "conv2.pool"]
    for node in norms:
        assert (node.op.bias, node.op.size, node.op.beta) == (2, 5, 0.75)
        assert node.op.alpha / node.op.size == pytest.approx(1e-4)
    assert not [node for node in alexnet(variant="one_tower") if isinstance(node.op, ops.LocalResponseNorm)]


@pytest.mark.parametrize("variant", TOTALS)
def test_dropout_in_the_first_two_dense_layers(variant):
    graph = alexnet(variant=variant)
    head = [node.op.kind for node in graph.nodes[-8:]]
    hidden = ["dropout", "dense", "activation"] if variant == "one_tower" else ["dense", "activation", "dropout"]
    assert head == ["flatten", *hidden, *hidden, "dense"]
    assert {node.op.rate for node in graph if isinstance(node.op, ops.Dropout)} == {0.5}


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (6, 6)),
        ({"variant": "one_tower"}, (6, 6)),
        ({"resolution": 97}, (2, 2)),  # 97 23 11 5 2
        ({"resolution": (64, 96)}, (1, 2)),
        ({"resolution": 32, "small_input": True}, (3, 3)),  # 32 32 15 7 3
        ({"resolution": (28, 64), "small_input": True}, (2, 7)),
        ({"resolution": 28, "small_input": True, "variant": "one_tower"}, (2, 2)),
    ],
    ids=str,
)
def test_last_plane_and_first_dense_layer(options, plane):
    graph = alexnet(**options)
    assert graph[graph.features].shape == (*plane, 256)
    assert graph.weights["fc6.dense.weight"].shape == (4096, plane[0] * plane[1] * 256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "two_towers"}, "variant must be grouped or ungrouped or one_tower, not 'two_towers'"),
        ({"small_input": "yes"}, "small_input must be true or false, not 'yes'"),
        ({"resolution": 32}, "conv5.pool: a 3x3 window does not fit the padded 1x1 input"),
        ({"channels": 0}, r"input: needs \(height, width, channels\), .*"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        alexnet(**options)
