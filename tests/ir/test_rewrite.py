"""Rewriting and walking, on networks drawn at random: a chain of relus with additions that read any earlier node."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks import every_number, images, random_weights
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.rewrite import in_order, only_reader, rewrite, unused_name
from smallcnn.reference import floating

RELU = ops.Activation(function="relu")
LEAKY = ops.Activation(function="leaky_relu")


@st.composite
def graphs(draw) -> Graph:
    """Nodes n1, n2, ...; what nothing reads is an output, and so are some others; the taps are any that may be."""
    g = Builder(input=(2, 1, 1))
    nodes = [g.input]
    for i in range(1, draw(st.integers(1, 8)) + 1):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
        add = g.add(*sources, name=f"n{i}") if len(sources) > 1 else g.activation(*sources, "relu", name=f"n{i}")
        nodes.append(add)
    read = {name for node in nodes for name in node.inputs}
    outputs = [node for node in nodes if node.name not in read or draw(st.booleans())]
    named = {f"o{i}": node for i, node in enumerate(outputs)}
    return g.graph(named, features=nodes[-1], taps=nodes[:-1], name="random")


# --- walking ---


@given(graphs())
def test_each_result_is_dropped_once_right_after_its_last_reader(graph):
    steps = list(in_order(graph))
    assert [node for node, _ in steps] == list(graph)
    dropped = {name: i for i, (_, finished) in enumerate(steps) for name in finished}
    assert sum(len(finished) for _, finished in steps) == len(dropped)
    kept = {output.node for output in graph.outputs}
    for node in graph:
        readers = [i for i, (reader, _) in enumerate(steps) if node.name in reader.inputs]
        assert dropped.get(node.name) == (max(readers) if readers and node.name not in kept else None)


@given(graphs())
def test_the_only_reader(graph):
    reads = Counter(name for node in graph for name in set(node.inputs))
    for node in graph:
        found = only_reader(graph, node)
        alone = reads[node.name] == 1 and node.name not in [output.node for output in graph.outputs]
        assert (found is not None) == alone
        assert found is None or node.name in found.inputs


# --- rewriting ---


@given(graphs())
def test_nothing_to_change_gives_the_same_graph(graph):
    assert rewrite(graph) == graph
    assert rewrite(graph, ops={node.name: node.op for node in graph}) == graph


@given(graphs(), st.data())
def test_relus_of_what_is_not_negative_can_go(graph, data):
    """Images here are not negative, so no relu changes a number; any set of them can be removed."""
    relus = [node.name for node in graph if node.op == RELU]
    without = data.draw(st.sets(st.sampled_from(relus))) if relus else set()
    fewer = rewrite(graph, without=without)
    assert [node.name for node in fewer] == [node.name for node in graph if node.name not in without]
    assert [output.name for output in fewer.outputs] == [output.name for output in graph.outputs]
    assert set(fewer.taps) <= set(graph.taps)
    same(fewer, graph)


@given(graphs(), st.data())
def test_what_follows_a_node_stands_for_it(graph, data):
    """Two nodes after some, which change no number here."""
    chosen = data.draw(st.sets(st.sampled_from([node.name for node in graph])))

    def behind(node: Node) -> list[Node]:
        first = make_node(f"{node.name}_a", RELU, [node])
        return [first, make_node(f"{node.name}_b", LEAKY, [first])]

    more = rewrite(graph, after=dict.fromkeys(chosen, behind))
    assert len(more.nodes) == len(graph.nodes) + 2 * len(chosen)
    stand = {name: f"{name}_b" if name in chosen else name for name in (node.name for node in graph)}
    assert more.taps == tuple(stand[tap] for tap in graph.taps)
    assert [output.node for output in more.outputs] == [stand[output.node] for output in graph.outputs]
    same(more, graph)


def same(one: Graph, other: Graph) -> None:
    image = np.array([[[[0.5]], [[2.0]]]])
    got, want = (floating.run(graph, {}, image) for graph in (one, other))
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def test_shapes_and_number_types_are_inferred_again():
    graph = every_number()
    wider = rewrite(graph, ops={"input": ops.Input((17, 16, 3))}, without={"q.dropout"})
    assert wider.input_shape == (17, 16, 3)
    assert wider["q.pad"].tensor.number == "uint8"
    assert wider.results["codes"].shape == (7, 9, 8)  # 9x8, then 8x8, 7x8 and 7x9


def test_a_dropout_among_bytes_can_go():
    graph = every_number()
    weights, batch = random_weights(graph), images(graph)
    got, want = (floating.run(g, weights, batch) for g in (rewrite(graph, without={"q.dropout"}), graph))
    np.testing.assert_array_equal(got["codes"], want["codes"])


def test_parts_that_are_joined_again_can_go():
    g = Builder(input=(2, 2, 3))
    end = g.conv(g.concat(*g.split(g.input, [1, 1, 1], name="part"), name="joined"), 2, name="conv")
    graph = g.graph(g.global_pool(end, name="pool"), features=end, name="split")
    left = rewrite(graph, without={"part.0", "part.1", "part.2", "joined"})
    assert [(node.name, node.inputs) for node in left] == [("input", ()), ("conv", ("input",)), ("pool", ("conv",))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": {"nothing": RELU}}, "every_number has no node 'nothing'"),
        ({"without": {"nothing"}}, "every_number has no node 'nothing'"),
        ({"after": {"nothing": lambda node: []}}, "every_number has no node 'nothing'"),
        ({"without": {"input"}}, "input has 0 inputs; only a node of one input can be removed"),
        ({"without": {"join"}}, "join has 2 inputs; only a node of one input can be removed"),
        ({"without": {"bn"}, "ops": {"bn": RELU}}, "bn cannot be both removed and changed"),
        ({"ops": {"few.depthwise": ops.Conv(out=6, groups=3)}}, "few.depthwise: .* do not divide into 3 groups"),
        ({"without": {"q.bytes"}}, "q.back: needs numbers on a grid, not float32"),
        ({"after": {"bn": lambda node: [make_node("clip", RELU, [node])]}}, "clip: two nodes have this name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_changes_that_cannot_be(changes, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        rewrite(every_number(), **changes)


def test_a_name_that_is_free():
    g = Builder(input=(2, 2, 1))
    end = g.activation(g.activation(g.input, "relu", name="a.b"), "relu", name="c")
    graph = g.graph(end, features=g.input, name="names")
    assert [unused_name(graph, name) for name in ("a", "a.b", "b", "c", "c_")] == ["a_", "a.b_", "b", "c_", "c_"]
