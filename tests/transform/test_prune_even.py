"""Shuffles whose groups do not divide: what is left of them, and that it computes the same."""

import numpy as np
import pytest

import networks
import zoo_models
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import run
from smallcnn.transform.prune.even import cuts, evened
from smallcnn.transform.prune.remove import remove_from_graph
from smallcnn.transform.prune.tied import families, tied


def bottleneck(groups, channels, first):
    """(4, 4, 3) -> 5 logits: a convolution of `first` groups, a shuffle, a depthwise and a grouped convolution."""
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, channels, name="stem")
    x = g.conv_bn(x, channels, groups=first, activation="relu", name="reduce")
    x = g.depthwise_bn(g.shuffle(x, groups, name="shuffle"), kernel=3, activation=None, name="depthwise")
    x = g.conv_bn(x, 2 * groups, groups=groups, activation=None, name="expand")
    return g.graph(g.dense(g.global_pool(x), 5, name="out"), features=x)


def without_reading(graph, weights, lost):
    """The weights with zeros where the grouped convolution `expand` reads these channels of the depthwise one."""
    kernel = weights["expand.conv.weight"].copy()
    (out, width), groups = kernel.shape[:2], graph["expand.conv"].op.groups
    by_group = kernel.reshape(groups, out // groups, width)
    for channel in lost:
        by_group[channel // width, :, channel % width] = 0
    return weights | {"expand.conv.weight": kernel}


@pytest.mark.parametrize(("groups", "channels", "left"), [(3, 60, 54), (2, 10, 8), (4, 68, 64)])
@pytest.mark.parametrize("grouped", [True, False])
def test_removing_the_rest_is_not_reading_it(groups, channels, left, grouped):
    graph = bottleneck(groups, channels, groups if grouped else 1)
    weights, images = networks.random_weights(graph), networks.images(graph, 2)
    made = cuts(graph, weights)
    lost = made[0].lost
    assert [len(lost[name]) for name in ("reduce.conv", "shuffle", "depthwise.conv")] == 3 * [channels - left]
    smaller, changed = evened(graph, weights, made)
    assert smaller["depthwise.bn"].shape[-1] == left
    assert {name: value.shape for name, value in changed.items()} == {n: w.shape for n, w in smaller.weights.items()}
    want = run(graph, without_reading(graph, weights, lost["depthwise.conv"]), images)["logits"]
    np.testing.assert_allclose(run(smaller, changed, images)["logits"], want, rtol=1e-9, atol=1e-9)
    # and then channels of the bottleneck can go, some at a time
    assert not [one for one in tied(graph) if "reduce.conv" in one.layers]
    sets = [one for one in tied(smaller) if "reduce.conv" in one.layers]
    assert len(sets) == left // groups**2
    assert {len(one.channels["depthwise.conv"]) for one in sets} == {groups**2}


def test_what_is_read_least_goes():
    graph = bottleneck(2, 10, 2)
    weights = networks.random_weights(graph)
    # groups of 5: after the shuffle 0 5 1 6 2 | 7 3 8 4 9; 0 1 2 and 7 8 9 are one more than 5 6 and 3 4
    weights["depthwise.bn.weight"] = np.float32([5, 5, -1, 5, 2, 5, 5, 5, 5, 1])
    weights["expand.conv.weight"] = np.where(np.arange(5) == 9, 1, np.ones((4, 5, 1, 1))).astype(np.float32)
    (made,) = cuts(graph, weights)
    assert made.kept.tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    weights["expand.conv.weight"][:2, 4] = 0.1  # place 4 after the shuffle is channel 2
    (made,) = cuts(graph, weights)
    assert made.kept.tolist() == [0, 1, 3, 4, 5, 6, 7, 8]


def test_shuffles_that_divide_or_cannot_stay():
    for graph in (bottleneck(3, 54, 3), bottleneck(4, 20, 4), bottleneck(3, 60, 6)):
        assert cuts(graph, networks.random_weights(graph)) == []


def test_a_shufflenet_of_three_groups_can_become_narrower_inside():
    graph = zoo_models.build("shufflenet_v1:scale=0.5", resolution=33)
    weights = networks.random_weights(graph)
    assert len(families(tied(graph))) == 1
    smaller, _ = evened(graph, weights, cuts(graph, weights))
    sets = tied(smaller)
    narrow = remove_from_graph(smaller, [sets[family[0]] for family in families(sets)[1:]])
    assert [narrow[f"stage{stage}_2.reduce.conv"].shape[-1] for stage in (2, 3, 4)] == [18, 45, 108]
