import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.googlenet import googlenet

TOTALS = {  # Mult-Adds, parameters
    "paper": (1_582_671_872, 6_998_552),
    "separable_stem": (1_498_677_248, 6_991_856),
    "torchvision": (1_498_376_192, 6_624_904),  # "1.498" GMACs in torchvision's own table
}
# Table 1: input channels, output side, the six filter counts, parameters in K and operations in M as printed
MODULES = {
    "inception3a": (192, 28, (64, 96, 128, 16, 32, 32), 159, 128),
    "inception3b": (256, 28, (128, 128, 192, 32, 96, 64), 380, 304),
    "inception4a": (480, 14, (192, 96, 208, 16, 48, 64), 364, 73),
    "inception4b": (512, 14, (160, 112, 224, 24, 64, 64), 437, 88),
    "inception4c": (512, 14, (128, 128, 256, 24, 64, 64), 463, 100),
    "inception4d": (512, 14, (112, 144, 288, 32, 64, 64), 580, 119),
    "inception4e": (528, 14, (256, 160, 320, 32, 128, 128), 840, 170),
    "inception5a": (832, 7, (256, 160, 320, 32, 128, 128), 1072, 54),
    "inception5b": (832, 7, (384, 192, 384, 48, 128, 128), 1388, 71),
}


def totals(variant: str) -> dict[str, tuple[int, int]]:
    """Weights without biases, and Mult-Adds, per row of Table 1."""
    graph = googlenet(variant=variant)
    rows = {}
    for layer in profile(graph).layers:
        if layer.mult_adds:
            row = layer.name.partition(".")[0]
            weights, mult_adds = rows.get(row, (0, 0))
            rows[row] = (weights + layer.parameters - layer.output_shape[-1], mult_adds + layer.mult_adds)
    return rows


@pytest.mark.parametrize("variant", TOTALS)
def test_totals(variant):
    cost = profile(googlenet(variant=variant))
    assert (cost.mult_adds, cost.parameters) == TOTALS[variant]


@pytest.mark.parametrize("row", MODULES)
def test_table_1_module_by_module(row):
    channels, side, (ones, reduce3, threes, reduce5, fives, projection), kilo, mega = MODULES[row]
    reduced = channels * (ones + reduce3 + reduce5 + projection)
    weights, mult_adds = totals("paper")[row]
    assert weights == reduced + 9 * reduce3 * threes + 25 * reduce5 * fives
    assert mult_adds == weights * side**2
    graph = googlenet()
    assert graph[f"{row}.concat"].shape == (side, side, ones + threes + fives + projection)
    # 73.6 is printed 73, but 87.9 is 88; 5a is printed as 54 and costs 51.1
    assert abs(mult_adds / 1e6 - mega) < (3 if row == "inception5a" else 1)
    # K is 1024; from 4a on, what is printed is not what the filter counts give, and 463 for 497.5 is furthest off
    assert abs(weights / 1024 - kilo) <= (1 if row in ("inception3a", "inception3b") else 0.07 * weights / 1024)


def test_table_1_other_rows():
    rows = totals("paper")
    weights, mult_adds = (a + b for a, b in zip(rows["conv2"], rows["conv3"], strict=True))
    assert (weights, mult_adds) == (112 * 1024, 359_661_568)  # 112K, 360M
    assert rows["classifier"] == (1000 * 1024, 1_024_000)  # 1000K, 1M
    assert rows["conv1"] == (9_408, 118_013_952)  # a full 7x7; what is printed is the next test's


def test_first_row_as_printed_is_a_separable_convolution():
    """2.7K and 34M: 24 filters of 7x7 and 64 of 1x1x24; biases at the second step only, like the totals."""
    graph = googlenet(variant="separable_stem")
    layers = [layer for layer in profile(graph).layers if layer.name.startswith("conv1.") and layer.mult_adds]
    assert [layer.parameters for layer in layers] == [7 * 7 * 24, 24 * 64 + 64]
    assert [layer.type for layer in layers] == ["depthwise conv 7x7", "conv 1x1"]
    assert sum(layer.mult_adds for layer in layers) == 2_712 * 112**2 == 34_019_328


def test_response_normalisation_around_the_first_modules():
    """Table 1's order: pool and norm, then 1x1 and 3x3, then norm and pool."""
    graph = googlenet()
    start = [n.name for n in graph.nodes[1:11]]
    assert start == [
        "conv1.conv", "conv1.act", "pool1", "norm1", "conv2.conv", "conv2.act", "conv3.conv", "conv3.act", "norm2",
        "pool2",
    ]  # fmt: skip
    assert [node.op.rate for node in graph if isinstance(node.op, ops.Dropout)] == [0.4]


def test_torchvision_variant():
    graph = googlenet(variant="torchvision")
    assert not [n for n in graph if isinstance(n.op, ops.LocalResponseNorm)]
    assert {n.op.epsilon for n in graph if isinstance(n.op, ops.BatchNorm)} == {0.001}
    assert {n.op.kernel for n in graph if isinstance(n.op, ops.Conv)} == {(7, 7), (3, 3), (1, 1)}
    assert {n.op.bias for n in graph if isinstance(n.op, ops.Conv)} == {False}
    assert (graph["pool3"].op.kernel, graph["pool4"].op.kernel) == ((3, 3), (2, 2))


def test_branches_in_the_order_of_torchvision():
    weighted = [name for name in googlenet(variant="torchvision").weights if name.endswith("conv.weight")]
    assert weighted[:9] == [
        f"{name}.conv.weight"
        for name in (
            "conv1", "conv2", "conv3", "inception3a.branch1", "inception3a.branch2.0", "inception3a.branch2.1",
            "inception3a.branch3.0", "inception3a.branch3.1", "inception3a.branch4.1",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 97}, (3, 3)),  # 97 49 24 12 6 3
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 15, "variant": "torchvision"}, (1, 1)),  # the least that torchvision names
        ({"resolution": 32, "small_input": True}, (4, 4)),
        ({"resolution": 28, "small_input": True, "variant": "torchvision"}, (4, 4)),  # 28 14 7 4
        ({"resolution": 28, "small_input": True, "variant": "separable_stem"}, (3, 3)),  # 28 14 7 3
    ],
    ids=str,
)
def test_last_plane(options, plane):
    graph = googlenet(**options)
    assert graph[graph.features].shape == (*plane, 1024)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "bn"}, "variant must be paper or separable_stem or torchvision, not 'bn'"),
        ({"small_input": 0}, "small_input must be true or false, not 0"),
        ({"resolution": 1}, "pool1: a 3x3 window does not fit the padded 1x1 input"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        googlenet(**options)
