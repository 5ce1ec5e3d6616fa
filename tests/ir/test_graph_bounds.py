"""What no small CNN needs is refused from its shapes, before anything of that size is made."""

import json
import time

import pytest

from networks import every_number, tiny
from smallcnn import zoo
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Tensor
from zoo_models import MODELS

ABSURD = {
    "a huge plane": ({"input": {"shape": [100_000, 100_000, 3]}}, "no side may be above 16384"),
    "a huge map of allowed sides": ({"input": {"shape": [16_000, 16_000, 3]}}, "768,000,000 numbers"),
    "a huge kernel": ({"stem.conv": {"kernel": [10**9, 10**9]}}, "kernel must be"),
    "a huge stride": ({"stem.conv": {"stride": [20_000, 20_000]}}, "stride must be"),
    "huge padding": ({"stem.conv": {"padding": [[20_000, 20_000], [20_000, 20_000]]}}, "padding must be"),
    "padding whose product is huge": (
        {"stem.conv": {"padding": [[4000, 4000], [4000, 4000]], "stride": [4000, 4000]}},
        r"pads to \(8008, 8008, 3\)",
    ),
    "too many channels": ({"stem.conv": {"out": 2**31 - 1}}, "numbers; at most"),
    "too many classes": ({"classifier": {"out": 2**30}}, "numbers; at most"),
    "too much work": (
        {"input": {"shape": [4000, 4000, 3]}, "stem.conv": {"kernel": [2000, 2000], "stride": [1, 1]}},
        "operations per image",
    ),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_networks_are_refused(name):
    changes, says = ABSURD[name]
    record = json.loads(tiny().to_json())
    for node in record["nodes"]:
        node.update(changes.get(node["name"], {}))
    with pytest.raises(GraphError, match=says) as caught:
        Graph.from_json(json.dumps(record))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_pool_of_a_billion_pixels(axis):
    kernel = [3, 3]
    kernel[axis] = 10**9
    with pytest.raises(GraphError, match=r"kernel must be .* from 1 to 4096"):
        ops.Pool(function="max", kernel=tuple(kernel), stride=(1, 1))


def test_a_pool_that_would_never_end():
    pool = ops.Pool(function="max", kernel=(3000, 3000), stride=(1, 1), padding=((1500, 1500), (1500, 1500)))
    with pytest.raises(GraphError, match="operations per image"):
        pool.check_bounds(Tensor((4000, 4000, 1)))


def test_graphs_of_a_million_nodes_and_deep_ones():
    record = json.loads(tiny().to_json())
    node = {"name": "a", "inputs": ["input"], "op": "flatten"}
    with pytest.raises(GraphError, match="20,000 nodes; at most 10,000"):
        Graph.from_json(json.dumps(record | {"nodes": [node] * 20_000}))
    with pytest.raises(GraphError, match="characters; at most"):
        Graph.from_json(json.dumps(record | {"nodes": [node] * 10**6}))
    with pytest.raises(GraphError, match="not the JSON of a graph"):
        Graph.from_json("[" * 10**6)


LONG = {
    "outputs": (
        {"outputs": [{"name": f"o{i}", "node": "classifier"} for i in range(200_000)]},
        "200,000 outputs; at mo",
    ),
    "taps": ({"taps": [f"t{i}" for i in range(500_000)]}, "tap 't0' is not a node"),
    "a name": ({"name": "x" * 5_000_000}, "one line of at most 1,000 characters, not 'xx"),
}


@pytest.mark.parametrize("name", LONG)
def test_long_lists_are_refused_at_once(name):
    changes, says = LONG[name]
    text = json.dumps(json.loads(tiny().to_json()) | changes)
    started = time.process_time()
    with pytest.raises(GraphError, match=says) as caught:
        Graph.from_json(text)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 300


def test_a_grid_of_a_million_entries():
    record = json.loads(every_number().to_json())
    (node,) = (node for node in record["nodes"] if node["name"] == "q.bytes")
    node["grid"] = {"scale": [0.1] * 10**6, "zero": [0] * 10**6}
    with pytest.raises(GraphError, match=r"q\.bytes: a grid of 1,000,000 entries; at most 65,536 are allowed"):
        Graph.from_json(json.dumps(record))


@pytest.mark.parametrize("text", MODELS)
def test_every_network_of_the_registry_at_a_thousand_pixels(text):
    assert zoo.parse(text).build(resolution=1000).input_shape[:2] == (1000, 1000)
