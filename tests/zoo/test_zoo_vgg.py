import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.vgg import vgg16


def test_totals():
    """The paper's Table 2 says 138 million; "15300" million Mult-Adds in MobileNet's Table 8."""
    cost = profile(vgg16())
    assert (cost.mult_adds, cost.parameters) == (15_470_264_320, 138_357_544)


def test_configuration_d():
    """Table 1, column D: 16 layers with weights, and the plane each convolution works on."""
    graph = vgg16()
    convolutions = [node for node in graph if isinstance(node.op, ops.Conv)]
    assert [(node.shape[0], node.shape[2]) for node in convolutions] == [
        (224, 64), (224, 64), (112, 128), (112, 128), (56, 256), (56, 256), (56, 256),
        (28, 512), (28, 512), (28, 512), (14, 512), (14, 512), (14, 512),
    ]  # fmt: skip
    assert {node.op.kernel for node in convolutions} == {(3, 3)}
    dense = [graph.weights_of(node)["weight"].shape for node in graph if isinstance(node.op, ops.Dense)]
    assert dense == [(4096, 7 * 7 * 512), (4096, 4096), (1000, 4096)]
    assert [node.op.kind for node in graph.nodes[-8:]] == [
        "flatten", "dense", "activation", "dropout", "dense", "activation", "dropout", "dense",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 97}, (3, 3)),  # 97 48 24 12 6 3
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 32}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (2, 2)),
        ({"resolution": 28, "small_input": True}, (1, 1)),
    ],
    ids=str,
)
def test_last_plane_and_first_dense_layer(options, plane):
    graph = vgg16(**options)
    assert graph[graph.features].shape == (*plane, 512)
    assert graph.weights["fc6.dense.weight"].shape == (4096, plane[0] * plane[1] * 512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"small_input": None}, "small_input must be true or false, not None"),
        ({"resolution": 28}, "pool5: a 2x2 window does not fit the padded 1x1 input"),
        ({"classes": 0}, "classifier: output features must be a whole number .* not 0"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        vgg16(**options)
