"""The time of one image that the compiler expects, before it compiles anything."""

import importlib.util

import numpy as np

from smallcnn.compiler import targets
from smallcnn.compiler.calibrate import of_host
from smallcnn.compiler.calls import Context, Normalisation
from smallcnn.compiler.lower import lower
from smallcnn.compiler.machines import MachineModel, packaged
from smallcnn.compiler.plan import plan
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Grid
from smallcnn.transform.fold import fold_graph
from smallcnn.transform.quantize import find_edges, insert, ready, without_integer_form

_GRID = Grid((6 / 255,), (0,))
"""A grid whose bytes end where ReLU and ReLU6 do, so that these vanish, as with most grids that are calibrated."""


def milliseconds(graph: Graph, threads: int = 1) -> float:
    """Estimated time of one image on this machine, compiled for `threads`, in ms: the sum over the plan's kernels.

    Raises CompileError for an operator that the compiler does not support.
    """
    target = targets.host()
    folded = fold_graph(graph)
    weights = _zeros(folded)
    channels = graph.input_shape[2]
    image = Normalisation(np.ones(channels, np.float32), np.zeros(channels, np.float32))
    context = Context(target.machine, machine(), image, folded.input_shape)
    estimator = context.estimator(threads)
    calls = plan(*lower(folded, weights, context.vector), context, threads)
    return sum(estimator.kernel(call.layers, call.choice) for call in calls if call.layers) / 1e6


def int8_milliseconds(graph: Graph) -> float:
    """The same for one thread once the network is quantized; nothing is calibrated for it.

    Raises GraphError if it is quantized already.
    """
    return milliseconds(in_bytes(graph))


def in_bytes(graph: Graph) -> Graph:
    """The quantized form of a float network, on grids that stand for nothing; what has no integer form stays in float.

    Raises GraphError if it is quantized already.
    """
    plain, weights = ready(graph, _zeros(graph))
    floats = without_integer_form(plain)
    return insert(plain, weights, dict.fromkeys(find_edges(plain, floats).names, _GRID), floats)[0]


def machine() -> MachineModel:
    """What is known of this machine: measured once if Halide is installed, else that of a typical one."""
    target = targets.host()
    return of_host(target) if importlib.util.find_spec("halide") else packaged(target)


def _zeros(graph: Graph) -> dict[str, np.ndarray]:
    return {name: np.zeros(weight.shape, weight.tensor.number) for name, weight in graph.weights.items()}
