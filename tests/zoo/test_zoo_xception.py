import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.xception import xception


def test_cost():
    """Table 3 of the paper counts 22,855,952 parameters; the Mult-Adds are those of Figure 5."""
    cost = profile(xception())
    assert (cost.parameters, cost.mult_adds) == (22_855_952, 8_357_403_496)


def test_flows():
    """Figure 5: what leaves each flow at 299 pixels."""
    graph = xception()
    assert graph["stem.first.conv"].shape == (149, 149, 32)
    assert graph["stem.second.conv"].shape == (147, 147, 64)
    blocks = [graph[f"block{i}.add"].shape for i in range(1, 13)]
    assert blocks == [(74, 74, 128), (37, 37, 256), *[(19, 19, 728)] * 9, (10, 10, 1024)]
    assert graph[graph.features].shape == (10, 10, 2048)


def test_36_convolutions_and_no_activation_inside_a_separable_one():
    """Section 3 counts 36 layers, a separable convolution as one and shortcuts not at all; Figure 10 on activations."""
    graph = xception()
    convolutions = [node for node in graph if isinstance(node.op, ops.Conv)]
    depthwise = [node for node in convolutions if node.op.groups > 1]
    assert len(convolutions) - len(depthwise) - 4 == 36
    assert {type(graph.consumers[node.name][0].op) for node in depthwise} == {ops.Conv}
    relus = [node.name for node in graph if isinstance(node.op, ops.Activation)]
    assert len(relus) == 2 + 2 * 4 - 1 + 3 * 8 + 2
    assert "block1.separable1.act" not in relus


def test_order_of_weights_is_that_of_public_pytorch_code():
    """There a block's shortcut is registered before its main branch (`skip`, `skipbn`, `rep`)."""
    names = [name for name in xception().weights if name.startswith("block12") and name.endswith(".weight")]
    assert names == [
        f"block12.{name}.weight"
        for name in (
            "shortcut.conv", "shortcut.bn",
            "separable1.depthwise", "separable1.pointwise", "separable1.bn",
            "separable2.depthwise", "separable2.pointwise", "separable2.bn",
        )
    ]  # fmt: skip


def test_padding_and_epsilon():
    same, symmetric = xception(resolution=224), xception(padding="symmetric", epsilon=1e-5, resolution=224)
    pool = "block1.pool"  # 109x109 -> 55x55 either way, both symmetric; block2's input is 55, block3's 28
    assert same[pool].op == symmetric[pool].op
    assert same["block3.pool"].op.padding == ((0, 1), (0, 1))
    assert symmetric["block3.pool"].op.padding == ((1, 1), (1, 1))
    assert same.weights == symmetric.weights
    assert {node.op.epsilon for node in same if isinstance(node.op, ops.BatchNorm)} == {0.001}
    assert {node.op.epsilon for node in symmetric if isinstance(node.op, ops.BatchNorm)} == {1e-5}
    assert symmetric.name == "xception:padding=symmetric,epsilon=1e-05"


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({"resolution": 97}, (3, 3)),  # 97 48 46 23 12 6 3
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 7}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (2, 2)),  # 32 30 28 14 7 4 2
        ({"resolution": 5, "small_input": True}, (1, 1)),
        ({"resolution": 64, "channels": 1, "classes": 1, "padding": "symmetric"}, (2, 2)),
    ],
    ids=str,
)
def test_last_plane(options, plane):
    graph = xception(**options)
    assert graph[graph.features].shape == (*plane, 2048)
    assert graph.output_shape == (options.get("classes", 1000),)


def test_small_input_differs_only_in_the_first_stride():
    usual, small = xception(), xception(small_input=True)
    assert [node.op.stride for node in (usual["stem.first.conv"], small["stem.first.conv"])] == [(2, 2), (1, 1)]
    assert usual.weights == small.weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "stem.first.conv: a 3x3 window does not fit the padded 1x1 input"),
        ({"resolution": 6}, "stem.second.conv: a 3x3 window does not fit the padded 2x2 input"),
        ({"padding": "valid"}, "padding must be same or symmetric, not 'valid'"),
        ({"epsilon": 0.0}, "stem.first.bn: epsilon must be a number above 0, not 0.0"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        xception(**options)
