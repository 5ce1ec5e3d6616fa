"""What a reader gives: a file's network, up to the ending that the file applies."""

from collections.abc import Mapping
from dataclasses import dataclass

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.entry import Entry
from smallcnn.foreign.integers import integers
from smallcnn.foreign.network import Network
from smallcnn.foreign.simplify import simplify, without_pads
from smallcnn.foreign.views import Array, View
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph, Node
from smallcnn.tasks.ending import Ending
from smallcnn.transform.logits import to_logits, without_sigmoid


@dataclass(frozen=True)
class Read:
    """The computation of a file.

    `entry`: the graph's input from the file's input; `done`: all steps on the image before the network, as evidence of
    its pixel range. `dropped`: the operator after the logits, by the file's name. `ending` turns the graph's output
    into answers; a single number with a sigmoid becomes two logits.
    """

    graph: Graph
    weights: dict[str, Array]
    entry: Entry
    done: tuple[Entry, ...]
    dropped: str | None
    ending: Ending


def finished(
    network: Network,
    outputs: Mapping[str, Node],
    name: str,
    ended: str | None,
    sigmoid: str,
    *,
    integer: bool = False,
) -> Read:
    """The network that ends in `outputs`, without a sigmoid at the end of a single one.

    `ended` is an operator already dropped; `sigmoid` is the file's name for a sigmoid. With `integer`, a quantized
    network computes with whole numbers.
    """
    simple = simplify(network, outputs, name if name.isprintable() else "imported")
    graph, weights = simple.graph, simple.weights
    if integer:
        graph, weights = integers(graph, weights, network.biases)
        graph = without_pads(graph)
    ending: Ending = "softmax"
    if len(outputs) == 1 and ended not in _SOFTMAX:
        ended = ended if without_sigmoid(graph) is None else sigmoid
        graph, weights, ending = to_logits(graph, weights)
    return Read(graph, weights, simple.entry, simple.done, ended, ending)


_SOFTMAX = ("Softmax", "LogSoftmax", "SOFTMAX", "LOG_SOFTMAX", "softmax", "log_softmax")


def vector(network: Network, result: View) -> Node:
    """The node of a result if that is a vector: one number per class."""
    if result.node == network.input:
        raise FileError("returns its input, or only pads it")
    view = network.ordered(result)
    plane = [atom for dim in view.dims for atom in dim if atom.axis != views.CHANNELS]
    if plane or sum(1 for dim in view.dims if dim) > 1:
        raise FileError(f"gives {shown(result.sizes)}, not one number per class")
    return network.vector(view).node
