import copy
import json
from collections.abc import Sequence
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks import every_integer, every_number, every_op, tiny
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node, Output, make_node
from smallcnn.ir.types import Grid, Tensor

INPUT = make_node("input", ops.Input((4, 4, 2)), [])
RELU = ops.Activation(function="relu")


def chain(*names: str) -> list[Node]:
    """The input and one relu after another under these names."""
    nodes = [INPUT]
    for name in names:
        nodes.append(make_node(name, RELU, nodes[-1:]))
    return nodes


def net(nodes: Sequence[Node], output: str, features: str, name: str = "net") -> Graph:
    return Graph(name, tuple(nodes), (Output("logits", output),), (features,))


# --- construction ---


def test_reading_a_graph():
    graph = net(chain("a", "b"), "b", "a")
    assert [node.name for node in graph] == ["input", "a", "b"]
    assert graph["b"].inputs == ("a",)
    assert graph.input_shape == (4, 4, 2)
    assert graph.output_shape == (4, 4, 2)
    assert graph.input_shapes(graph["a"]) == ((4, 4, 2),)
    with pytest.raises(FrozenInstanceError):
        graph.name = "other"


def test_consumers_are_listed_once_and_in_order():
    a = make_node("a", RELU, [INPUT])
    twice = make_node("twice", ops.Add(), [a, a])
    end = make_node("end", ops.Add(), [twice, a])
    graph = net((INPUT, a, twice, end), "end", "end")
    assert graph.consumers == {"input": (a,), "a": (twice, end), "twice": (end,), "end": ()}


def test_weights_are_named_after_their_node_in_order():
    assert [(name, weight.shape) for name, weight in tiny().weights.items()] == [
        ("stem.conv.weight", (4, 3, 3, 3)),
        ("stem.bn.weight", (4,)),
        ("stem.bn.bias", (4,)),
        ("stem.bn.running_mean", (4,)),
        ("stem.bn.running_var", (4,)),
        ("block.conv.weight", (4, 1, 3, 3)),
        ("block.bn.weight", (4,)),
        ("block.bn.bias", (4,)),
        ("block.bn.running_mean", (4,)),
        ("block.bn.running_var", (4,)),
        ("classifier.weight", (3, 4)),
        ("classifier.bias", (3,)),
    ]


def branch() -> list[Node]:
    """input -> a -> b -> sum(a, b)."""
    nodes = chain("a", "b")
    return [*nodes, make_node("sum", ops.Add(), nodes[1:])]


@pytest.mark.parametrize(
    ("nodes", "output", "features", "message"),
    [
        ([], "a", "a", "a graph starts with its input node"),
        (chain("a")[1:], "a", "a", "a graph starts with its input node"),
        (chain("a", "a"), "a", "a", "a: two nodes have this name"),
        ([*chain("a"), chain("b", "c")[2]], "c", "c", "c: its input 'b' is not an earlier node"),
        ([INPUT, Node("a", RELU, ("a",), Tensor((4, 4, 2)))], "a", "a", "a: its input 'a' is not an earlier node"),
        (
            [INPUT, Node("a", RELU, ("input",), Tensor((4, 4, 3)))],
            "a",
            "a",
            r"a: shape \(4, 4, 3\) differs from its operator",
        ),
        ([INPUT, Node("a", RELU, (), Tensor((4, 4, 2)))], "a", "a", r"a: activation takes 1 input\(s\), not 0"),
        ([*chain("a"), make_node("again", INPUT.op, [])], "a", "a", "a graph has one input node"),
        (branch()[:3] + chain("c")[1:], "c", "c", "b: nothing uses this node"),
        (chain("a", "b"), "a", "a", "b: nothing uses this node"),
        (chain("a"), "b", "a", "output 'b' is not a node"),
        (chain("a"), "a", "b", "tap 'b' is not a node"),
        (branch(), "sum", "b", "sum: reads a past the end of the features, b"),
        (chain("a", "a.b"), "a.b", "a.b", "a.b: a is a node itself, so it cannot also be a group of nodes"),
        (chain("a.b.c", "a"), "a", "a", "a.b.c: a is a node itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_that_cannot_be(nodes, output, features, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        net(nodes, output, features)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a..b", ".a", "a.", "a-b", "a\n", "ä", "a" * 201, 3, None, ["a"]])
def test_node_names(name):
    with pytest.raises(GraphError, match="not a node name: letters, digits and _, dots between parts"):
        make_node(name, RELU, [INPUT])


@pytest.mark.parametrize("name", ["two\nlines", "\ud800", 3, None], ids=repr)
def test_graph_names(name):
    with pytest.raises(GraphError, match="a graph's name must be one line of at most"):
        net(chain("a"), "a", "a", name)


@pytest.mark.parametrize(
    ("op", "count", "message"),
    [
        (ops.Input((4, 4, 2)), 1, r"x: input takes 0 input\(s\), not 1"),
        (RELU, 2, r"x: activation takes 1 input\(s\), not 2"),
        (ops.Add(), 1, r"x: add takes at least 2 input\(s\), not 1"),
        (ops.Concat(), 0, r"x: concat takes at least 2 input\(s\), not 0"),
        (ops.Scale(), 3, r"x: scale takes 2 input\(s\), not 3"),
        (ops.Dense(out=2), 1, r"x: needs a vector"),
    ],
)
def test_inputs_of_a_node(op, count, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        make_node("x", op, [INPUT] * count)


# --- outputs and taps ---


def several(outputs: dict[str, str], taps: Sequence[str]) -> Graph:
    """input -> a -> b -> c, and q, the bytes of b, with these outputs and taps."""
    nodes = chain("a", "b", "c")
    q = make_node("q", ops.Quantize(number="uint8", grid=Grid((0.5,), (0,))), [nodes[2]])
    return Graph("net", (*nodes, q), tuple(Output(*pair) for pair in outputs.items()), tuple(taps))


def test_outputs_by_name_in_order():
    graph = several({"bytes": "q", "last": "c"}, ["a", "b"])
    assert graph.results == {
        "bytes": Tensor((4, 4, 2), "uint8", Grid((0.5,), (0,))),
        "last": Tensor((4, 4, 2)),
    }
    assert list(graph.results) == ["bytes", "last"]
    assert graph.features == "b"
    for read in (lambda: graph.output, lambda: graph.output_shape):
        with pytest.raises(GraphError, match=r"^net has 2 outputs \(bytes, last\), not one$"):
            read()


def test_a_head_may_read_any_tap_and_one_node_may_be_two_outputs():
    nodes = branch()
    graph = Graph("net", tuple(nodes), (Output("x", "sum"), Output("y", "sum")), ("a", "b"))
    assert graph.results == {"x": Tensor((4, 4, 2)), "y": Tensor((4, 4, 2))}


@pytest.mark.parametrize(
    ("outputs", "taps", "message"),
    [
        ({}, ["b"], "a graph has at least one output and one tap"),
        ({"x": "c", "y": "q"}, [], "a graph has at least one output and one tap"),
        ({"x": "c", "y": "d"}, ["b"], "output 'd' is not a node"),
        ({"x": "c", "two words": "q"}, ["b"], "'two words' is not a node name"),
        ({"x": "c"}, ["b"], "q: nothing uses this node"),
        ({"x": "c", "y": "q"}, ["b", "b"], "two taps are called 'b'"),
        ({"x": "c", "y": "q"}, ["b", "a"], "taps b, a are not in the order of the nodes"),
        ({"x": "c", "y": "q"}, ["c"], "q: reads b past the end of the features, c"),
    ],
    ids=str,
)
def test_ends_that_cannot_be(outputs, taps, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        several(outputs, taps)


def test_two_outputs_of_one_name():
    with pytest.raises(GraphError, match=r"^two outputs are called 'x'$"):
        Graph("net", tuple(chain("a")), (Output("x", "a"), Output("x", "a")), ("a",))


# --- JSON ---

# What a version 1 file holds. Files people have saved look like this: if this test fails, they can no longer be read.
VERSION_1 = """{"version": 1, "name": "net", "output": "fc", "features": "act", "nodes": [
    {"name": "input", "inputs": [], "op": "input", "shape": [8, 9, 3]},
    {"name": "conv", "inputs": ["input"], "op": "conv", "out": 4, "kernel": [3, 3], "stride": [2, 1],
     "padding": [[0, 1], [1, 1]], "groups": 1, "bias": false},
    {"name": "bn", "inputs": ["conv"], "op": "batch_norm", "epsilon": 0.001},
    {"name": "act", "inputs": ["bn"], "op": "activation", "function": "relu6", "slope": 0.01},
    {"name": "pool", "inputs": ["act"], "op": "global_pool"},
    {"name": "fc", "inputs": ["pool"], "op": "dense", "out": 10, "bias": true}]}"""


def test_version_1_is_read():
    g = Builder(input=(8, 9, 3))
    x = g.conv(g.input, 4, kernel=3, stride=(2, 1), padding=((0, 1), (1, 1)), bias=False, name="conv")
    x = g.activation(g.batch_norm(x, epsilon=0.001, name="bn"), "relu6", name="act")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 10, name="fc"), features=x, name="net")
    assert Graph.from_json(VERSION_1) == graph


# What a version 2 file holds: several outputs and taps, a grid on an edge and one per output of a weight.
VERSION_2 = """{"version": 2, "name": "net", "taps": ["conv", "act"],
    "outputs": [{"name": "logits", "node": "fc"}, {"name": "codes", "node": "q"}], "nodes": [
    {"name": "input", "inputs": [], "op": "input", "shape": [8, 9, 3]},
    {"name": "conv", "inputs": ["input"], "op": "conv", "out": 2, "kernel": [3, 3], "stride": [2, 1],
     "padding": [[0, 1], [1, 1]], "groups": 1, "bias": false,
     "number": "int8", "grid": {"scale": [0.5, 0.25], "zero": [0, -3]}},
    {"name": "act", "inputs": ["conv"], "op": "activation", "function": "relu6", "slope": 0.01},
    {"name": "q", "inputs": ["conv"], "op": "quantize", "number": "uint8", "grid": {"scale": [0.125], "zero": [128]}},
    {"name": "pool", "inputs": ["act"], "op": "global_pool"},
    {"name": "fc", "inputs": ["pool"], "op": "dense", "out": 10, "bias": true}]}"""


# What is written: attributes at their defaults and zeros of 0 are omitted.
WRITTEN = """{"version": 2, "name": "net", "taps": ["conv", "act"],
    "outputs": [{"name": "logits", "node": "fc"}, {"name": "codes", "node": "q"}], "nodes": [
    {"name": "input", "inputs": [], "op": "input", "shape": [8, 9, 3]},
    {"name": "conv", "inputs": ["input"], "op": "conv", "out": 2, "kernel": [3, 3], "stride": [2, 1],
     "padding": [[0, 1], [1, 1]], "bias": false, "number": "int8", "grid": {"scale": [0.5, 0.25], "zero": [0, -3]}},
    {"name": "act", "inputs": ["conv"], "op": "activation", "function": "relu6"},
    {"name": "q", "inputs": ["conv"], "op": "quantize", "number": "uint8", "grid": {"scale": [0.125], "zero": [128]}},
    {"name": "pool", "inputs": ["act"], "op": "global_pool"},
    {"name": "fc", "inputs": ["pool"], "op": "dense", "out": 10}]}"""


def test_version_2_is_read_and_written():
    g = Builder(input=(8, 9, 3))
    x = g.conv(
        g.input, 2, kernel=3, stride=(2, 1), padding=((0, 1), (1, 1)), bias=False, number="int8",
        grid=Grid((0.5, 0.25), (0, -3)), name="conv",
    )  # fmt: skip
    act = g.activation(x, "relu6", name="act")
    codes = g.quantize(x, "uint8", scale=0.125, zero=128, name="q")
    logits = g.dense(g.global_pool(act, name="pool"), 10, name="fc")
    graph = g.graph({"logits": logits, "codes": codes}, features=act, taps=[x], name="net")
    assert Graph.from_json(VERSION_2) == graph
    assert Graph.from_json(WRITTEN) == graph
    assert json.loads(graph.to_json()) == json.loads(WRITTEN)
    assert graph.to_json_and_scales() == (graph.to_json(), ()), "zeros other than 0 stay with their scales"


@pytest.mark.parametrize(
    "graph",
    [every_op(), every_number(), every_integer(), *(zoo.parse(name).build() for name in zoo.names())],
    ids=lambda g: g.name,
)
def test_json_round_trip(graph):
    assert Graph.from_json(graph.to_json()) == graph
    assert Graph.from_json(*graph.to_json_and_scales()) == graph


SCALES = (0.1, 2.0**-126, 1 / 3, (2 - 2.0**-23) * 2.0**127, 0.5, 0.25)
"""Numbers that float32 rounds, and its ends."""


def on_grids() -> Graph:
    """A convolution with a scale for each of its four outputs, and a dense layer with two; then one with one scale."""
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 4, kernel=1, number="int8", grid=Grid(SCALES[:4], (0,) * 4), name="conv")
    x = g.dense(g.global_pool(x, name="pool"), 2, number="int8", grid=Grid(SCALES[4:], (0, 0)), name="few")
    return g.graph(g.dense(x, 5, number="uint8", grid=Grid((0.1,), (128,)), name="fc"), features=x, name="net")


def test_scales_of_weights_apart():
    text, scales = on_grids().to_json_and_scales()
    assert scales == tuple(np.array(SCALES, np.float32).tolist())
    assert [node.get("grid") for node in json.loads(text)["nodes"]] == [
        None, None, None, None, {"scale": [0.100000001], "zero": [128]},
    ]  # fmt: skip
    assert Graph.from_json(text, np.array(scales, np.float32)) == on_grids()
    assert Graph.from_json(on_grids().to_json()) == on_grids()


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "conv: weights of 'int8' need a grid"),
        (SCALES[:3], "conv: weights of 'int8' need a grid"),
        (SCALES[:5], "few: weights of 'int8' need a grid"),
        ((*SCALES, 1.0), "more scales than its weights have outputs"),
        ((float("nan"), *SCALES[1:]), "conv: a scale must be a number above 0, not nan"),
        ((-0.5, *SCALES[1:]), "conv: a scale must be a number above 0, not -0.5"),
        ((1e-45, *SCALES[1:]), "conv: a scale must be from 1.18e-38 to 3.4e"),
    ],
    ids=str,
)
def test_scales_that_do_not_fit(scales, message):
    text, _ = on_grids().to_json_and_scales()
    with pytest.raises(GraphError, match=f"^{message}"):
        Graph.from_json(text, scales)


def changed(**entries: object) -> str:
    return json.dumps(json.loads(VERSION_1) | entries)


def with_node(index: int, **entries: object) -> str:
    record = json.loads(VERSION_1)
    record["nodes"][index] |= entries
    return json.dumps(record)


def without(record: dict, key: str) -> dict:
    return {name: value for name, value in record.items() if name != key}


NODES = json.loads(VERSION_1)["nodes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the JSON of a graph: "),
        (VERSION_1[:-1], "not the JSON of a graph: "),
        ("[" * 100_000, "not the JSON of a graph: "),
        ("1" * 5000, "not the JSON of a graph: "),
        ("null", "not the JSON of a graph: None has no 'version'"),
        ("[1]", r"not the JSON of a graph: \[1\] has no 'version'"),
        (changed(version=3), "graph of version 3; this smallcnn reads versions 1 to 2"),
        (changed(version=2), "not the JSON of a graph: .* has no 'outputs'"),
        (changed(name=None), "not the JSON of a graph: 'name' is None, not a str"),
        (changed(output=["fc"]), r"not the JSON of a graph: 'output' is \['fc'\], not a str"),
        (changed(features="nothing"), "tap 'nothing' is not a node"),
        (changed(nodes={}), r"not the JSON of a graph: 'nodes' is \{\}, not a list"),
        (changed(nodes=[]), "a graph starts with its input node"),
        (changed(nodes=["ab"]), "not the JSON of a graph: 'ab' has no 'name'"),
        (changed(nodes=[without(NODES[0], "inputs")]), "not the JSON of a graph: {.*} has no 'inputs'"),
        (changed(nodes=[NODES[0], *NODES]), "input: two nodes have this name"),
        (changed(nodes=NODES[::-1]), "fc: its input 'pool' is not an earlier node"),
        (with_node(1, inputs=["act"]), "conv: its input 'act' is not an earlier node"),
        (with_node(1, inputs=[["input"]]), r"conv: its input \['input'\] is not an earlier node"),
        (with_node(1, inputs="input"), "not the JSON of a graph: 'inputs' is 'input', not a list"),
        (with_node(1, name="two\nlines"), r"'two\\nlines' is not a node name"),
        (with_node(1, op="convolution"), "conv: no operator 'convolution'; closest: activation, conv"),
        (with_node(1, spread=2), "conv: conv has no attribute 'spread'; it has out, kernel, "),
        (with_node(1, out=float("nan")), "conv: output channels must be a whole number .* not nan"),
        (with_node(1, out=10**4000), r"conv: output channels must be a whole number .* not 10+\.\.\.0+$"),
        (with_node(1, kernel=[99, 99]), "conv: a 99x99 window does not fit"),
        (with_node(4, op="dropout", rate=0.5), r"fc: needs a vector \(features,\), not \(4, 9, 4\)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_json_that_is_no_graph(text, message):
    with pytest.raises(GraphError, match=f"^{message}"):
        Graph.from_json(text)


def test_a_deep_attribute_is_refused_by_name():
    deep = "[" * 500 + "]" * 500  # Python's JSON reader takes this
    text = VERSION_1.replace("[2, 1]", deep)
    with pytest.raises(GraphError, match=r"^conv: stride must be"):
        Graph.from_json(text)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5)
    | st.sampled_from([-1, 0, 1, 2, 3, 2**31, 10**400, "input", "stem.conv", "add", "1", "\n" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["op", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def damaged_graphs(draw):
    """The JSON of `every_number` with up to three entries replaced, dropped, doubled or copied from elsewhere."""
    record = copy.deepcopy(EVERY_NUMBER)
    for _ in range(draw(st.integers(1, 3))):
        inside = record
        while True:
            if not inside:
                break
            key = draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
            if isinstance(inside[key], dict | list) and inside[key] and draw(st.booleans()):
                inside = inside[key]
                continue
            match draw(st.sampled_from(["replace", "replace", "drop", "double", "copy"])):
                case "replace":
                    inside[key] = draw(junk)
                case "drop":
                    del inside[key]
                case "double" if isinstance(inside, list):
                    inside.insert(key, copy.deepcopy(inside[key]))
                case "double":
                    inside[key + "2"] = inside[key]
                case "copy":
                    inside[key] = copy.deepcopy(draw(st.sampled_from(EVERY_NUMBER["nodes"])))
            break
    return json.dumps(record)


EVERY_NUMBER = json.loads(every_number().to_json())


@given(damaged_graphs())
def test_damaged_json_gives_a_graph_or_a_graph_error(text):
    read_or_refuse(text)


@given(st.integers(0, len(VERSION_1)), st.integers(0, 30), st.text('[]{}",:-.0123456789eNaItruflsn ab', max_size=12))
def test_damaged_text_gives_a_graph_or_a_graph_error(start, length, patch):
    read_or_refuse(VERSION_1[:start] + patch + VERSION_1[start + length :])


def read_or_refuse(text: str) -> None:
    try:
        graph = Graph.from_json(text)
    except GraphError as error:
        message = str(error)
        assert message.isprintable(), "one line"
        assert len(message) < 1000, "a message does not quote a whole file"
    else:
        assert Graph.from_json(graph.to_json()) == graph
        assert profile(graph).mult_adds >= 0, "and whatever is read can be counted"
