"""Structured pruning: which channels belong together, and what is left without them."""

import numpy as np
import pytest

import networks
import zoo_models
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import run
from smallcnn.transform.prune import criteria
from smallcnn.transform.prune.choose import removals, within
from smallcnn.transform.prune.remove import remove, remove_from_graph
from smallcnn.transform.prune.tied import families, tied

QUICK = (
    "mobilenet_v1:width=0.25", "mobilenet_v2:width=0.35", "mobilenet_v2:width=0.35,residual=expansions",
    "mobilenet_v3_small:width=0.75", "shufflenet_v1:scale=0.5", "shufflenet_v1:groups=8,scale=0.5",
    "shufflenet_v1:groups=8,scale=0.5,shuffle=none", "shufflenet_v2:scale=0.5", "squeezenet_1_1:bypass=complex",
    "effnet_cifar", "effnet_cifar:block=shufflenet",
)  # fmt: skip
OTHERS = sorted(
    set(zoo.names()) - {text.partition(":")[0] for text in QUICK}
    | {"shufflenet_v1:shuffle=none", "shufflenet_v2:shuffle=released", "squeezenet_1_1:bypass=simple"}
)
"""Networks that take seconds each, and more forms."""
FIXED = ("alexnet", "vgg16", "effnet_cifar", "ssd")
"""Networks whose size is not changed."""


def small(text):
    """The network for small images."""
    return zoo_models.build(text, **({} if text.startswith(FIXED) else {"resolution": 33}))


def some(graph, rng):
    """Up to half of the sets of each family, in any order, as far as every node keeps a channel."""
    sets = tied(graph)
    left = {node.name: node.shape[-1] for node in graph}
    gone = []
    for family in families(sets):
        for one in rng.permutation(family)[: rng.integers(1, len(family) // 2 + 2)]:
            lost = {name: len(places) for name, places in sets[one].channels.items()}
            if all(left[name] > count for name, count in lost.items()):
                left |= {name: left[name] - count for name, count in lost.items()}
                gone.append(sets[one])
    return gone


def zeroed(weights, parts):
    """The weights with these parts zero."""
    weights = {name: value.copy() for name, value in weights.items()}
    for part in parts:
        weights[part.tensor][(slice(None),) * part.axis + (list(part.indices),)] = 0
    return weights


def assert_removing_is_zeroing(graph, *kinds):
    """Without some sets of channels, a network computes what it does if the weights of these kinds are zero."""
    weights, images = networks.random_weights(graph), networks.images(graph, 1)
    gone = some(graph, np.random.default_rng(0))
    assert gone
    smaller, left = remove(graph, weights, gone)
    assert {name: value.shape for name, value in left.items()} == {n: w.shape for n, w in smaller.weights.items()}
    assert profile(smaller).mult_adds < profile(graph).mult_adds
    got = run(smaller, left, images)
    for kind in kinds:
        parts = [part for one in gone for part in getattr(one, kind)]
        for name, value in run(graph, zeroed(weights, parts), images).items():
            # the same sums in another order, in float64
            np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max())


@pytest.mark.parametrize("name", QUICK)
def test_removing_channels_changes_nothing_but_what_read_them(name):
    assert_removing_is_zeroing(small(name), "read")


@pytest.mark.parametrize("make", [networks.every_op, networks.resized])
def test_the_same_with_every_operator(make):
    assert_removing_is_zeroing(make(), "read")


@pytest.mark.parametrize("make", [networks.detector, networks.dilated])
def test_removing_channels_of_zeros_changes_nothing(make):
    assert_removing_is_zeroing(make(), "read", "made")


@pytest.mark.long
@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_both_in_every_network(name):
    assert_removing_is_zeroing(small(name), "read", "made")


@pytest.mark.long
@pytest.mark.parametrize("name", zoo_models.MODELS + zoo_models.DETECTOR_MODELS)
def test_every_form_has_a_smaller_one(name):
    graph = zoo_models.build(name)
    smaller = remove_from_graph(graph, some(graph, np.random.default_rng(0)))
    assert profile(smaller).parameters < profile(graph).parameters
    assert smaller.results == graph.results


def by_node(graph, *names):
    """The channels that sets have in these nodes, as a set of tuples of tuples."""
    return {tuple(one.channels.get(name, ()) for name in names) for one in tied(graph)}


def test_a_sum_ties_what_it_adds_and_a_depthwise_convolution_its_input():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 2, kernel=3, name="stem")
    y = g.conv(x, 3, name="expand")
    y = g.depthwise(y, kernel=3, multiplier=2, name="depthwise")
    x = g.add(x, g.conv(y, 2, name="project"), name="sum")
    flat = g.flatten(g.max_pool(x, kernel=4, stride=4, name="pool"), name="flat")
    graph = g.graph(g.dense(flat, 2, name="out"), features=x)
    assert by_node(graph, "stem", "project", "sum", "flat") == {
        ((0,), (0,), (0,), (0, 2, 4, 6)), ((1,), (1,), (1,), (1, 3, 5, 7)), ((), (), (), ()),
    }  # fmt: skip
    assert by_node(graph, "expand", "depthwise") == {((0,), (0, 1)), ((1,), (2, 3)), ((2,), (4, 5)), ((), ())}
    first = tied(graph)[0]
    assert first.layers == ("stem", "project")
    assert [(part.tensor, part.axis, part.indices) for part in first.made] == [
        ("stem.weight", 0, (0,)), ("stem.bias", 0, (0,)), ("project.weight", 0, (0,)), ("project.bias", 0, (0,))
    ]  # fmt: skip
    assert [(part.tensor, part.axis, part.indices) for part in first.read] == [
        ("expand.weight", 1, (0,)), ("out.weight", 1, (0, 2, 4, 6))
    ]  # fmt: skip
    assert [len(family) for family in families(tied(graph))] == [2, 3]


def test_groups_stay_equal_through_a_shuffle():
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 8, name="first")
    x = g.shuffle(g.conv(x, 4, groups=2, name="grouped"), 2, name="shuffle")
    graph = g.graph(g.dense(g.global_pool(x), 3, name="out"), features=x)
    assert by_node(graph, "first") == {((0, 4),), ((1, 5),), ((2, 6),), ((3, 7),), ((),)}
    assert by_node(graph, "grouped", "shuffle") == {((0, 2), (0, 1)), ((1, 3), (2, 3)), ((), ())}


def test_a_gate_is_tied_to_its_map_and_slices_follow():
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 4, name="first")
    gate = g.dense(g.global_pool(x), 4, name="gate")
    a, b = g.split(g.scale(x, g.activation(gate, "sigmoid"), name="scaled"), (1, 3), name="split")
    x = g.concat(b, a, name="turned")
    graph = g.graph(g.dense(g.global_pool(x), 3, name="out"), features=x)
    # the first channel is all that a slice has, so it stays
    assert by_node(graph, "first", "gate", "turned") == {((i,), (i,), (i - 1,)) for i in (1, 2, 3)}


def test_outputs_and_normalised_channels_stay():
    g = Builder(input=(6, 6, 3))
    x = g.local_response_norm(g.conv(g.input, 4, name="normed"), size=3, alpha=1.0, beta=0.5, bias=1.0)
    y = g.conv(x, 5, name="free")
    graph = g.graph({"map": g.conv(y, 4, name="map"), "other": g.dense(g.global_pool(y), 3, name="dense")}, features=y)
    assert {one.layers for one in tied(graph)} == {("free",)}


def test_a_quantized_network_is_refused():
    with pytest.raises(GraphError, match="quantized"):
        tied(networks.every_integer())


def test_a_node_keeps_a_channel():
    graph = pair()
    family = families(tied(graph))[0]
    with pytest.raises(GraphError, match="no channels left"):
        remove_from_graph(graph, [tied(graph)[one] for one in family])


def pair():
    """Two 1x1 convolutions of 16 channels on 4x4 and 2x2 pixels, and a classifier of 2 classes."""
    g = Builder(input=(4, 4, 1))
    x = g.conv(g.input, 16, name="a")
    x = g.conv(g.max_pool(x, kernel=2, stride=2), 16, name="b")
    return g.graph(g.dense(g.global_pool(x), 2, name="out"), features=x)


def test_magnitudes_are_those_of_folded_filters():
    g = Builder(input=(4, 4, 1))
    x = g.conv_bn(g.input, 3, kernel=1, name="a")
    graph = g.graph(g.dense(g.global_pool(x), 2, name="out"), features=x)
    weights = networks.random_weights(graph)
    weights["a.conv.weight"] = np.array([3, -1, 2], np.float32).reshape(3, 1, 1, 1)
    weights["a.bn.weight"], weights["a.bn.running_var"] = np.float32([1, -6, 2]), np.float32([1, 4, 4])
    sets = tied(graph)
    folded = np.array([3, 3, 2]) / np.mean([3, 3, 2])
    for power in (1, 2):
        np.testing.assert_allclose(criteria.magnitude(graph, weights, sets, power), folded, rtol=1e-4)
    np.testing.assert_allclose(criteria.norm_scale(graph, weights, sets), [1, 6, 2])
    with pytest.raises(GraphError, match="no batch norm"):
        criteria.norm_scale(pair(), networks.random_weights(pair()), tied(pair()))


def test_taylor_is_the_squared_change_of_the_loss_to_first_order():
    """For a loss that is linear in the logits, the change is exact: compared with the network without the channel."""
    graph = pair()
    weights, images = networks.random_weights(graph), networks.images(graph, 3)
    sets = [one for one in tied(graph) if one.layers == ("b",)]
    toward = np.array([1.0, -2.0])

    def loss(weights):
        return float((run(graph, weights, images)["logits"] @ toward).mean())

    pooled = run(graph, weights | {"out.weight": np.eye(2, 16, dtype=np.float32)}, images)  # only for its shape
    assert pooled["logits"].shape == (3, 2)
    features = np.array([
        [run(graph, weights | {"out.weight": np.eye(16, dtype=np.float32)[[i, i]], "out.bias": np.zeros(2)}, images)
         ["logits"][:, 0]] for i in range(16)
    ])[:, 0].mean(axis=1)  # fmt: skip
    gradient = {"out.weight": np.outer(toward, features)}
    got = criteria.taylor(weights, [gradient], sets)
    want = [(loss(weights) - loss(zeroed(weights, one.read))) ** 2 for one in sets]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(criteria.taylor(weights, [gradient, {"out.weight": 0 * features}], sets), got / 2)


def test_a_share_is_of_what_is_left():
    sets = tied(pair())
    scores = np.array([4.0, 3.0, 0.0] + [0.0] * 13 + [2.0] * 16)
    got = criteria.shares(scores, sets, families(sets))
    np.testing.assert_allclose(got[:3], [1, 9 / 25, 0], atol=1e-12)
    np.testing.assert_allclose(sorted(got[16:]), [1 / n for n in range(16, 0, -1)])


def test_removals_save_most_for_the_least_score():
    """A channel of a has 16 + 4 * 16 products, one of b 4 * 16 + 2."""
    graph = pair()
    sets = tied(graph)
    scores = np.ones(len(sets))
    scores[:8] = 0.5  # half of a
    ordered = removals(graph, sets, families(sets), scores, step=4)
    assert [(one.family, one.sets) for one in ordered[:2]] == [(0, (0, 1, 2, 3)), (0, (4, 5, 6, 7))]
    assert {one.share for one in ordered} == {0.25, 0.5, 0.75}
    layered = removals(graph, sets, families(sets), scores, step=4, order="layer")
    assert [one.share for one in layered] == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_the_fewest_removals_within_a_budget():
    graph = pair()
    sets = tied(graph)
    ordered = removals(graph, sets, families(sets), np.arange(32.0), step=4, order="layer")

    def cost(graph):
        return profile(graph).mult_adds

    # 16 pixels * n + 4 pixels * n * m + 2 * m products
    costs = [16 * n + 4 * n * m + 2 * m for n, m in ((16, 16), (12, 16), (12, 12), (8, 12), (8, 8), (4, 8), (4, 4))]
    for removed, budget in enumerate(costs):
        assert len(within(graph, sets, ordered, cost, budget, "products")) == 4 * removed
        if removed:
            assert len(within(graph, sets, ordered, cost, budget - 1 + 1e-6 + 1, "products")) == 4 * removed
    with pytest.raises(GraphError, match=r"^pruning cannot reach 135 products: 136 is the least"):
        within(graph, sets, ordered, cost, costs[-1] - 1, "products")


def test_widths_become_multiples_of_the_step():
    graph = small("mobilenet_v2:width=0.35")
    sets = tied(graph)
    scores = criteria.shares(criteria.random(sets, 0), sets, families(sets))
    ordered = removals(graph, sets, families(sets), scores, step=16)
    half = profile(graph).mult_adds / 2
    smaller = remove_from_graph(graph, within(graph, sets, ordered, lambda one: profile(one).mult_adds, half, ""))
    assert profile(smaller).mult_adds <= half
    changed = [node.shape[-1] for node in smaller if node.shape[-1] != graph[node.name].shape[-1]]
    assert changed
    assert not any(width % 16 for width in changed)
