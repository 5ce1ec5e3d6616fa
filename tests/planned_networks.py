"""A graph with random weights as the compiler's planner sees it."""

import numpy as np

from compiled_networks import model_of
from smallcnn.compiler import targets
from smallcnn.compiler.calls import Call, Context, Normalisation
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.lower import lower
from smallcnn.compiler.machines import MachineModel, packaged
from smallcnn.compiler.plan import plan
from smallcnn.ir.graph import Graph
from smallcnn.transform.fold import fold


def context_of(graph: Graph, target: str = "x86-64-linux-avx2", model: MachineModel | None = None) -> Context:
    """What all calls of the network share; a typical machine of the target if no `model` is given."""
    parsed = targets.parse(target)
    one = np.ones(3, "f4")
    return Context(parsed.machine, model or packaged(parsed), Normalisation(one, 0 * one), graph.input_shape)


def layers_of(graph: Graph, context: Context) -> list[Layer]:
    """The network's layers."""
    return list(lower(*fold(graph, model_of(graph).weights), context.vector)[0])


def planned(graph: Graph, context: Context) -> list[Call]:
    """The network's calls on one thread."""
    return plan(*lower(*fold(graph, model_of(graph).weights), context.vector), context, 1)
