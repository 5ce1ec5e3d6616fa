import numpy as np
import pytest

from networks import every_op, images, random_weights, tiny
from smallcnn import zoo
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.reference import floating as reference
from smallcnn.reference.initial import check_weights
from smallcnn.transform.fold import fold, fold_graph, foldable


def norms(graph: Graph) -> list[str]:
    return [node.name for node in graph if isinstance(node.op, ops.BatchNorm)]


GRAPHS = [tiny(), every_op(), zoo.mobilenet_v1(width=0.25, resolution=32, classes=5)]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_the_folded_network_computes_the_same(graph):
    """Only the rounding of the folded weights to float32 may differ: 2^-24 of each, once per layer.

    A layer's outputs are sums of random signs, so the errors grow about as the values do; 100 times the rounding is
    left for the 28 layers and their cancellations.
    """
    weights = random_weights(graph)
    folded, folded_weights = fold(graph, weights)
    check_weights(folded, folded_weights, AssertionError)
    assert all(value.dtype == np.float32 for value in folded_weights.values())
    want = reference.answer(graph, weights, images(graph))
    got = reference.answer(folded, folded_weights, images(graph))
    np.testing.assert_allclose(got, want, rtol=0, atol=100 * 2**-24 * np.abs(want).max())


def test_one_channel_by_hand():
    """y = (3 x + 1 - 4) / sqrt(7 + 2) * 5 + 6 = 5 x + 1."""
    g = Builder(input=(1, 1, 1))
    x = g.batch_norm(g.conv(g.input, 1, name="conv"), epsilon=2.0, name="bn")
    graph = g.graph(x, features=x, name="net")
    values = {"weight": 5, "bias": 6, "running_mean": 4, "running_var": 7}
    weights = {f"bn.{key}": np.array([value], np.float32) for key, value in values.items()}
    weights |= {"conv.weight": np.full((1, 1, 1, 1), 3, np.float32), "conv.bias": np.ones(1, np.float32)}
    before = {name: value.copy() for name, value in weights.items()}
    folded, got = fold(graph, weights)
    assert [node.name for node in folded] == ["input", "conv"]
    assert {name: value.item() for name, value in got.items()} == {"conv.weight": 5, "conv.bias": 1}
    assert weights == before, "folding changes nothing it was given"


def test_every_foldable_norm_goes_and_the_others_stay():
    """`bn` comes after a concat; the stem's, `last`'s and the head's each follow a layer of their own."""
    assert foldable(every_op()) == {"stem.bn": "stem.conv", "last.bn": "last.conv", "hidden_bn": "hidden"}
    folded = fold_graph(every_op())
    assert norms(folded) == ["bn"]
    assert all(folded[name].op.bias for name in ("stem.conv", "last.conv", "hidden"))
    assert not folded["many.conv"].op.bias, "no bias where none is needed"
    assert fold_graph(folded) == folded


def shared_convolution(g):
    x = g.conv(g.input, 2, name="conv")
    return g.add(g.batch_norm(x, name="bn"), x)


def after_the_input(g):
    return g.conv(g.batch_norm(g.input, name="bn"), 2)


def after_an_activation(g):
    return g.batch_norm(g.activation(g.conv(g.input, 2), "relu"), name="bn")


@pytest.mark.parametrize("make", [shared_convolution, after_the_input, after_an_activation], ids=lambda f: f.__name__)
def test_norms_that_cannot_be_folded_stay(make):
    g = Builder(input=(4, 4, 2))
    end = make(g)
    graph = g.graph(end, features=end, name="net")
    weights = random_weights(graph)
    folded, folded_weights = fold(graph, weights)
    assert folded == graph
    assert {name: value.tobytes() for name, value in folded_weights.items()} == {
        name: value.tobytes() for name, value in weights.items()
    }


def test_output_and_features_move_to_the_layer_that_took_the_norm_in():
    g = Builder(input=(4, 4, 2))
    features = g.conv_bn(g.input, 3, activation=None, name="backbone")
    end = g.batch_norm(g.dense(g.global_pool(features), 2, name="fc"), name="fc_bn")
    folded = fold_graph(g.graph(end, features=features, name="net"))
    assert (folded.output, folded.features) == ("fc", "backbone.conv")
    assert norms(folded) == []


def test_a_norm_that_starts_the_head_is_not_folded_into_the_backbone():
    g = Builder(input=(4, 4, 2))
    features = g.conv(g.input, 3, name="backbone")
    end = g.batch_norm(features, name="bn")
    graph = g.graph(end, features=features, name="net")
    assert fold_graph(graph) == graph


def test_denormal_weights_become_zero():
    """1e-30 * 1e-10 is below 2^-126, the smallest normal number; 1e-20 * 1e-10 is not."""
    g = Builder(input=(1, 1, 1))
    x = g.batch_norm(g.conv(g.input, 2, bias=False, name="conv"), epsilon=1e-12, name="bn")
    graph = g.graph(g.dense(g.flatten(x), 1, name="last"), features=x, name="faint")
    weights = random_weights(graph) | {
        "conv.weight": np.array([1e-30, 1e-20], np.float32).reshape(2, 1, 1, 1),
        "bn.weight": np.full(2, 1e-10, np.float32),
        "bn.bias": np.array([-1e-39, 1], np.float32),
        "bn.running_mean": np.zeros(2, np.float32),
        "bn.running_var": np.ones(2, np.float32),
        "last.weight": np.array([[1e-39, 2**-126]], np.float32),
    }
    _, folded = fold(graph, weights)
    np.testing.assert_allclose(folded["conv.weight"].ravel(), [0, 1e-30], rtol=1e-6)  # rounded twice to float32
    np.testing.assert_array_equal(folded["conv.bias"], [0, 1])
    np.testing.assert_array_equal(folded["last.weight"], np.array([[0, 2**-126]], np.float32))
