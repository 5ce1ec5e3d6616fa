from math import ceil, prod

import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.effnet import effnet, effnet_cifar


def convolutions(graph):
    return [node for node in graph if isinstance(node.op, ops.Conv)]


def weights(graph):
    """Convolution and dense weights, without biases and batch norm."""
    return sum(
        prod(graph.weights_of(node)["weight"].shape) for node in graph if isinstance(node.op, ops.Conv | ops.Dense)
    )


# --- the CIFAR-10 networks ---


@pytest.mark.parametrize(
    ("block", "mult_adds", "want_weights", "printed"),
    [
        ("baseline", 39_559_168, 411_328, 80.3),
        ("mobilenet", 2_914_304, 85_376, 5.8),
        ("shufflenet", 2_231_296, 51_232, 4.7),
        ("effnet", 5_640_192, 148_896, 11.4),
    ],
)
def test_table_1(block, mult_adds, want_weights, printed):
    """The integers follow from Table 1; Table 2 prints MFLOPs, twice the Mult-Adds but for at most 6 %."""
    graph = effnet_cifar(block=block)
    assert (profile(graph).mult_adds, weights(graph)) == (mult_adds, want_weights)
    assert 2 * mult_adds / 1e6 == pytest.approx(printed, rel=0.06)


@pytest.mark.parametrize(
    ("block", "sizes"),
    [
        # Table 1's "floats out" where it prints them after pool or stride
        ("baseline", [16384, 8192, 4096]),
        ("mobilenet", [16384, 4096, 8192, 2048, 4096]),
        ("shufflenet", [16384, 8192, 2048, 8192, 4096, 1024, 4096]),
        ("effnet", [
            32768, 16384, 16384, 16384,
            16384, 8192, 8192, 8192,
            8192, 4096, 4096, 4096,
        ]),
    ],
)  # fmt: skip
def test_table_1_sizes(block, sizes):
    graph = effnet_cifar(block=block)
    pools = {graph.nodes[i - 1].name for i, node in enumerate(graph.nodes) if isinstance(node.op, ops.Pool)}
    ends = [
        node for node in graph
        if isinstance(node.op, ops.Pool)
        or (isinstance(node.op, ops.BatchNorm) and not pools & {reader.name for reader in graph.consumers[node.name]})
    ]  # fmt: skip
    assert [prod(node.shape) for node in ends] == sizes


@pytest.mark.parametrize(("block", "printed"), [("mobilenet", 11.6), ("shufflenet", 11.1), ("effnet", 79.8)])
def test_large_networks_cost_what_table_2_prints(block, printed):
    assert 2 * profile(effnet_cifar(block=block, large=True)).mult_adds / 1e6 == pytest.approx(printed, rel=0.002)


@pytest.mark.parametrize(("expansion", "printed"), [(6, 44.1), (4, 31.1), (2, 18.1)])
def test_revised_networks_cost_what_table_5_prints(expansion, printed):
    cost = profile(effnet_cifar(block="revised", expansion=expansion))
    assert round(2 * cost.mult_adds / 1e6, 1) == printed


def test_effnet_block():
    """Figure 1a and Table 1: width and height are halved apart, the width by the pool."""
    graph = effnet_cifar()
    block = [node for node in graph if node.name.startswith("block2.") and isinstance(node.op, ops.Conv | ops.Pool)]
    assert [(node.op.kernel, node.op.stride, node.shape) for node in block] == [
        ((1, 1), (1, 1), (16, 16, 64)),
        ((1, 3), (1, 1), (16, 16, 64)),
        ((1, 2), (1, 2), (16, 8, 64)),
        ((3, 1), (1, 1), (16, 8, 64)),
        ((2, 1), (2, 1), (8, 8, 128)),
    ]
    assert [getattr(node.op, "groups", None) for node in block] == [1, 64, None, 64, 1]


def test_revised_block():
    """Section 6.2: floor(in * expansion / 2), depth multiplier 2, leaky ReLU on the pointwise layers only."""
    graph = effnet_cifar(block="revised", expansion=4)
    widths = [node.op.out for node in convolutions(graph)]
    assert widths == [32, 64, 64, 64, 128, 256, 256, 128, 256, 512, 512, 256]
    leaky = [node.name for node in graph if getattr(node.op, "function", None) == "leaky_relu"]
    assert leaky == [f"block{i}.{layer}.act" for i in (1, 2, 3) for layer in ("pointwise", "project")]


def test_shufflenet_block_shuffles_between_its_grouped_convolutions():
    graph = effnet_cifar(block="shufflenet")
    kinds = [node.op.kind for node in graph if node.name.startswith("block3.")]
    assert kinds == [
        "conv",
        "batch_norm",
        "activation",
        "shuffle",
        "conv",
        "batch_norm",
        "conv",
        "batch_norm",
        "activation",
    ]
    assert [node.op.groups for node in convolutions(graph)] == [1, 4, 32, 4, 4, 64, 4]


@pytest.mark.parametrize("block", ["baseline", "mobilenet", "shufflenet", "effnet", "revised"])
@pytest.mark.parametrize("resolution", [1, 28, 97, (64, 96)], ids=str)
def test_cifar_networks_at_any_size(block, resolution):
    graph = effnet_cifar(block=block, resolution=resolution, classes=5, channels=1)
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert graph[graph.features].shape == (ceil(height / 8), ceil(width / 8), 256)
    assert graph.output_shape == (5,)


def test_cifar_defaults():
    graph = effnet_cifar()
    assert (graph.name, graph.input_shape, graph.output_shape) == ("effnet_cifar", (32, 32, 3), (10,))
    assert effnet_cifar(block="revised", expansion=2).name == "effnet_cifar:block=revised,expansion=2"
    assert effnet_cifar(large=True).name == "effnet_cifar:large=true"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "resnet"}, "block must be baseline or mobilenet or shufflenet or effnet or revised, not 'resnet'"),
        ({"block": "baseline", "large": True}, "large requires block=mobilenet, shufflenet, effnet, not baseline: .*"),
        ({"block": "revised", "large": True}, "large requires block=mobilenet, shufflenet, effnet, not revised: .*"),
        ({"block": "revised", "expansion": 3}, "expansion must be 2, 4 or 6, not 3"),
        ({"expansion": 2}, "expansion requires block=revised, not effnet"),
    ],
    ids=str,
)
def test_cifar_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        effnet_cifar(**options)


# --- the ImageNet-sized network ---


def expected_cost(resolution, stages, channels=3, classes=1000):
    """Mult-Adds and weights by the block's formulas: pointwise, 1x3, 3x1, then 2x1 (halving) or 1x1."""
    mult_adds = count = 0
    side, c = resolution, channels
    for out, blocks in stages:
        b = out // 2
        for i in range(blocks):
            half = side // 2 if i == 0 else side
            last = 2 if i == 0 else 1
            mult_adds += side * side * (c * b + 3 * b) + side * half * 3 * b + half * half * last * b * out
            count += c * b + 6 * b + last * b * out
            side, c = half, out
    return mult_adds + c * classes, count + c * classes


def test_effnet_cost_by_formula():
    graph = effnet()
    assert (profile(graph).mult_adds, weights(graph)) == expected_cost(
        224, [(32, 1), (64, 2), (128, 3), (256, 6), (768, 2)]
    )
    assert profile(graph).mult_adds < 300e6


def test_effnet_shortcuts_stay_within_a_stage():
    graph = effnet()
    adds = [node.name for node in graph if isinstance(node.op, ops.Add)]
    assert adds == [f"block{i}.add" for i in (3, 5, 6, 8, 9, 10, 11, 12, 14)]
    assert graph["block3.add"].inputs == ("block2.project.act", "block3.project.bn")


def test_effnet_widths_are_multiples_of_8_and_bottlenecks_at_least_6():
    graph = effnet(width=0.1)
    assert {node.op.out % 8 for node in convolutions(graph) if node.name.endswith("project.conv")} == {0}
    assert graph["block1.project.conv"].shape[2] == 8
    assert graph["block1.pointwise.conv"].shape[2] == 6


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 97}, (4, 4)),  # 97 49 25 13 7 4: odd sides round up five times
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 1}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (2, 2)),
        ({"resolution": 28, "small_input": True, "channels": 1, "classes": 5}, (2, 2)),
    ],
    ids=str,
)
def test_effnet_last_plane(options, plane):
    graph = effnet(**options)
    assert graph[graph.features].shape == (*plane, 768)
    assert graph.output_shape == (options.get("classes", 1000),)


def test_effnet_small_input_keeps_the_first_plane():
    graph = effnet(small_input=True, resolution=32)
    assert graph["block1.project.act"].shape == (32, 32, 32)
    assert graph["block2.project.act"].shape == (16, 16, 64)
    assert graph.name == "effnet:small_input=true"


@pytest.mark.parametrize("width", [0, -1, 8.5, float("nan")])
def test_effnet_width_out_of_range(width):
    with pytest.raises(GraphError, match=r"^width must be above 0 and at most 8, not \S+$"):
        effnet(width=width)
