import re

import pytest
import torch

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.shufflenet_v1 import shufflenet_v1

# groups: stage channels and "Complexity" (M) as Table 1 prints them; per stage the exact parameters and Mult-Adds;
# exact totals with the classifier
TABLE_1 = {
    1: ((144, 288, 576), 143, (39_264, 322_848, 592_128), (31.50, 68.08, 34.80), 1_531_936, 143_078_976),
    2: ((200, 400, 800), 140, (39_752, 316_400, 576_000), (32.14, 66.09, 33.67), 1_733_848, 140_836_512),
    3: ((240, 480, 960), 137, (39_552, 307_680, 556_800), (32.18, 63.79, 32.41), 1_865_728, 137_460_672),
    4: ((272, 544, 1088), 133, (39_256, 299_744, 539_648), (32.09, 61.74, 31.29), 1_968_344, 134_339_776),
    8: ((384, 768, 1536), 137, (42_288, 307_968, 546_816), (35.00, 62.32, 31.39), 2_434_768, 138_365_952),
}
# scale, groups: first layer, last stage, parameters of the released network (no bias in the classifier), Mult-Adds
SCALES = {
    (0.5, 3): (12, 480, 717_324, 37_589_856),  # 38 M in the paper's tables
    (0.5, 8): (16, 768, 1_010_448, 40_469_760),
    (1.0, 3): (24, 960, 1_864_728, 137_460_672),
    (1.0, 8): (24, 1536, 2_433_768, 138_365_952),
    (1.5, 3): (24, 1440, 3_441_168, 292_443_552),  # 292 M
    (1.5, 8): (24, 2304, 4_268_952, 290_188_800),
    (2.0, 3): (48, 1920, 5_449_776, 524_045_184),  # 524 M
    (2.0, 8): (48, 3072, 6_521_232, 521_942_016),
    (0.5, 1): (12, 288, 533_484, 38_517_408),  # 38 M
    (0.25, 1): (12, 144, 208_908, 13_162_320),  # 13 M
    (0.25, 3): (12, 240, 305_124, 13_300_656),  # 13 M
}


@pytest.mark.parametrize("groups", TABLE_1)
def test_table_1(groups):
    channels, complexity, stage_parameters, stage_mult_adds, parameters, mult_adds = TABLE_1[groups]
    graph = shufflenet_v1(groups=groups)
    cost = profile(graph)
    stages = [[layer for layer in cost.layers if layer.name.startswith(f"stage{i}_")] for i in (2, 3, 4)]
    assert [stage[-1].output_shape for stage in stages] == [
        (side, side, width) for side, width in zip((28, 14, 7), channels, strict=True)
    ]
    assert [sum(layer.parameters for layer in stage) for stage in stages] == list(stage_parameters)
    assert [round(sum(layer.mult_adds for layer in stage) / 1e6, 2) for stage in stages] == list(stage_mult_adds)
    assert (cost.parameters, cost.mult_adds) == (parameters, mult_adds)
    assert round((cost.mult_adds - channels[-1] * 1000) / 1e6) == complexity, "Table 1 leaves the classifier out"


@pytest.mark.parametrize(("scale", "groups"), SCALES)
def test_scales(scale, groups):
    stem, last, released, mult_adds = SCALES[scale, groups]
    graph = shufflenet_v1(groups=groups, scale=scale)
    assert (graph["stem.conv"].shape[2], graph[graph.features].shape[2]) == (stem, last)
    cost = profile(graph)
    assert cost.mult_adds == mult_adds
    assert cost.parameters == released + 1000, "as released, with a bias for each class"
    assert graph.weights["classifier.bias"].shape == (1000,)


def test_fifty_layers():
    """Section 4.1: three for each of 16 units, the first layer and the classifier."""
    assert sum(isinstance(node.op, ops.Conv | ops.Dense) for node in shufflenet_v1()) == 50


def test_cost_of_a_unit_follows_section_3_1():
    """A unit of stride 1 with c channels and m in its bottleneck costs hw(2cm/g + 9m)."""
    h, w, c, m, g = 14, 14, 544, 136, 4
    unit = [layer for layer in profile(shufflenet_v1(groups=g)).layers if layer.name.startswith("stage3_5.")]
    assert sum(layer.mult_adds for layer in unit) == h * w * (2 * c * m // g + 9 * m)


def test_units_of_figure_2():
    graph = shufflenet_v1()
    stride_1 = [node for node in graph if node.name.startswith("stage2_2.")]
    assert [node.name.removeprefix("stage2_2.") for node in stride_1] == [
        "reduce.conv", "reduce.bn", "reduce.act", "shuffle", "depthwise.conv", "depthwise.bn",
        "expand.conv", "expand.bn", "add", "act",
    ]  # fmt: skip
    stride_2 = [node for node in graph if node.name.startswith("stage3_1.")]
    assert [node.name.removeprefix("stage3_1.") for node in stride_2] == [
        "reduce.conv", "reduce.bn", "reduce.act", "shuffle", "depthwise.conv", "depthwise.bn",
        "expand.conv", "expand.bn", "expand.act", "pool", "concat",
    ]  # fmt: skip
    assert graph["stage3_1.concat"].inputs == ("stage3_1.pool", "stage3_1.expand.act")
    assert graph["stage3_1.pool"].inputs == ("stage2_4.act",)
    assert graph["stage3_1.expand.conv"].shape == (14, 14, 480 - 240)
    assert graph["stage3_1.reduce.conv"].shape[2] == 480 // 4
    grouped = {
        node.name: node.op.groups for node in graph if isinstance(node.op, ops.Conv) and node.op.kernel == (1, 1)
    }
    assert grouped.pop("stage2_1.reduce.conv") == 1
    assert set(grouped.values()) == {3}


def test_shuffles():
    """The paper shuffles before the depthwise convolution, the released code after it and the other way round."""
    paper, released = shufflenet_v1(groups=8), shufflenet_v1(groups=8, shuffle="released")
    assert paper["stage4_2.shuffle"].op.groups == 8
    assert paper["stage4_2.depthwise.conv"].inputs == ("stage4_2.shuffle",)
    assert released["stage4_2.shuffle"].op.groups == 1536 // 4 // 8
    assert released["stage4_2.expand.conv"].inputs == ("stage4_2.shuffle",)
    for graph in (
        shufflenet_v1(groups=8, shuffle="none"),
        shufflenet_v1(groups=1),
        shufflenet_v1(groups=1, shuffle="released"),
    ):
        assert not [node for node in graph if isinstance(node.op, ops.Shuffle)]
    assert paper.weights == released.weights == shufflenet_v1(groups=8, shuffle="none").weights


def test_released_shuffle_of_numbered_channels():
    """The released code views 12 channels of 3 groups as (4, 3) and transposes; the paper as (3, 4): its inverse."""
    channels = torch.arange(12.0)
    for shuffle, rows in (("paper", 3), ("released", 4)):
        node = shufflenet_v1(scale=0.2, shuffle=shuffle)["stage2_2.shuffle"]
        assert node.shape[2] == 12
        shuffled = torch.nn.ChannelShuffle(node.op.groups)(channels.reshape(1, 12, 1, 1)).flatten()
        assert shuffled.tolist() == channels.reshape(rows, -1).T.flatten().tolist()


def test_squeeze_and_excitation():
    """Table 5: 524 M become 527 M. Two dense layers, C to C / 16 and back, in each of 4, 8 and 4 units."""
    plain, cost = profile(shufflenet_v1(scale=2)), profile(shufflenet_v1(scale=2, se=True))
    widths = [480] * 4 + [960] * 8 + [1920] * 4
    assert cost.mult_adds - plain.mult_adds == sum(2 * c * c // 16 for c in widths)
    assert cost.parameters - plain.parameters == sum(2 * c * c // 16 + c // 16 + c for c in widths)
    assert (round(plain.mult_adds / 1e6), round(cost.mult_adds / 1e6)) == (524, 527)
    graph = shufflenet_v1(se=True)
    assert graph["stage2_2.add"].inputs == ("stage2_1.se.scale", "stage2_2.se.scale")
    assert graph["stage2_1.se.scale"].inputs == ("stage2_1.concat", "stage2_1.se.gate")


def test_padding_and_epsilon():
    graph = shufflenet_v1()
    assert {n.op.epsilon for n in graph if isinstance(n.op, ops.BatchNorm)} == {1e-5}
    spatial = [n.op for n in graph if isinstance(n.op, ops.Conv | ops.Pool) and n.op.kernel == (3, 3)]
    assert {op.padding for op in spatial} == {((1, 1), (1, 1))}
    assert {op.count_padding for op in spatial if isinstance(op, ops.Pool) and op.function == "average"} == {True}
    assert {n.op.function for n in graph if isinstance(n.op, ops.Activation)} == {"relu"}


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 97}, (4, 4)),
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 1}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (4, 4)),
        ({"resolution": 28, "small_input": True}, (4, 4)),  # 28 14 7 4
    ],
    ids=str,
)
def test_last_plane(options, plane):
    graph = shufflenet_v1(**options)
    assert graph[graph.features].shape == (*plane, 960)


def test_four_groups_at_half_scale():
    """136 channels do not divide. Table 4 has 576 in the last stage, 4 * 144: that costs 40.7 M, not its 38 M."""
    with pytest.raises(GraphError, match=r"^groups 4 at scale 0\.5 gives stage 2 136 channels; .* scale .*0\.529412 "):
        shufflenet_v1(groups=4, scale=0.5)
    graph = shufflenet_v1(groups=4, scale=0.529412)
    assert [graph[f"stage{i}_1.concat"].shape[2] for i in (2, 3, 4)] == [144, 288, 576]
    assert profile(graph).mult_adds == 40_710_528
    assert graph.name == "shufflenet_v1:groups=4,scale=0.529412"


@pytest.mark.parametrize(
    ("groups", "scale", "nearest", "others"),
    [
        (2, 0.5, {96: 0.48, 104: 0.52}, "1 or 3 or 8"),
        (2, 0.25, {48: 0.24, 56: 0.28}, "1 or 3 or 8"),
        (4, 0.25, {64: 0.235294, 80: 0.294118}, "1 or 3 or 8"),
        (8, 0.7, {256: 0.666667, 288: 0.75}, "3"),
        (3, 0.01, {24: 0.1}, None),  # 12 channels would leave the first unit nothing to add to the first layer's 12
        (8, 1.3, {480: 1.25, 512: 1.33333}, "3"),
    ],
)
def test_scales_that_do_not_divide(groups, scale, nearest, others):
    with pytest.raises(GraphError) as error:
        shufflenet_v1(groups=groups, scale=scale)
    message = str(error.value)
    assert "\n" not in message
    assert {int(width): float(near) for near, width in re.findall(r"([\d.]+) \((\d+)/", message)} == nearest
    for width, near in nearest.items():
        assert shufflenet_v1(groups=groups, scale=near)["stage2_1.concat"].shape[2] == width
    assert message.endswith(f", or groups {others}") if others else ", or groups" not in message
    for other in (others or "").split(" or ") if others else ():
        shufflenet_v1(groups=int(other), scale=scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 5}, "groups must be 1, 2, 3, 4 or 8, not 5"),
        ({"groups": 3.0}, "groups must be a whole number, not 3.0"),
        ({"scale": 0}, "scale must be above 0 and at most 8, not 0; the paper uses 0.25, 0.5, 1, 1.5 and 2"),
        ({"scale": float("nan")}, "scale must be above 0 and at most 8, not nan; .*"),
        ({"scale": 100.0}, "scale must be above 0 and at most 8, not 100; .*"),
        ({"shuffle": "random"}, "shuffle must be paper or released or none, not 'random'"),
        ({"se": 1}, "se must be true or false, not 1"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        shufflenet_v1(**options)
