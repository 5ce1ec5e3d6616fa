"""Explains a plan: which nodes share a kernel, its tiles, how threads split it, and its memory.

explain(graph, calls, ...)         for a compiled network
peak_activation_bytes(graph)       for any network, without Halide
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from smallcnn.compiler import machines, memory, targets
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.calls import Call, Context, Normalisation
from smallcnn.compiler.lower import lower
from smallcnn.compiler.operands import Answer, Map
from smallcnn.compiler.plan import plan
from smallcnn.compiler.program import Program
from smallcnn.compiler.scratch import scratch_bytes
from smallcnn.compiler.specs import Depthwise, Tile
from smallcnn.cost.profile import mult_adds
from smallcnn.ir.graph import Graph
from smallcnn.transform.fold import fold_graph

_REFERENCE = "x86-64-linux-avx2"
"""The machine `peak_activation_bytes` assumes everywhere: vectors of 8 floats, the most common."""


@dataclass(frozen=True)
class PlannedStep:
    """One step, named after its nodes with Mult-Adds, or else after its first node.

    `tiles` are pixels x vectors of sums in registers, one per product; `rows` is the height of a strip of the output
    (None: no strips). Threads split the output into `parts`; with 1, one thread computes it alone.
    """

    name: str
    nodes: tuple[str, ...]
    kernel: str
    tiles: tuple[tuple[int, int], ...]
    rows: int | None
    parts: int
    mult_adds: int
    scratch_bytes: int


@dataclass(frozen=True)
class Explanation:
    """The steps and bytes: one arena for all tensors between steps, scratch per thread, packed weights.

    `machine` is the model of a processor that the plan follows, and `machine_origin` how its figures were found.
    `kernels` counts distinct kernels; `cached` of them had been compiled before.
    """

    target: str
    machine: str
    machine_origin: str
    steps: tuple[PlannedStep, ...]
    arena_bytes: int
    scratch_bytes_per_thread: int
    weight_bytes: int
    kernels: int
    cached: int


def explain(
    graph: Graph, calls: Sequence[Call], program: Program, cached: int, model: machines.MachineModel
) -> Explanation:
    """Explains what `calls` do for `graph` (folded or not), with the totals of the resulting program."""
    counts = {node.name: mult_adds(graph, node) for node in graph}
    machine = targets.parse(program.target).machine
    return Explanation(
        target=program.target,
        machine=model.name,
        machine_origin=model.origin,
        steps=tuple(_step(call, counts, machine) for call in calls),
        arena_bytes=program.arena_bytes,
        scratch_bytes_per_thread=program.scratch_bytes,
        weight_bytes=len(program.weights),
        kernels=len({call.spec for call in calls}),
        cached=cached,
    )


def peak_activation_bytes(graph: Graph) -> int:
    """Memory a compiled network needs besides its weights: the arena and one thread's scratch, planned for two threads.

    Raises CompileError for an operator that the compiler does not support.
    """
    target = targets.parse(_REFERENCE)
    machine = target.machine
    folded = fold_graph(graph)
    weights = {name: np.zeros(weight.shape, weight.tensor.number) for name, weight in folded.weights.items()}
    layers, answers = lower(folded, weights, machine.vector)
    channels = graph.input_shape[2]
    image = Normalisation(np.ones(channels, np.float32), np.zeros(channels, np.float32))
    calls = plan(layers, answers, Context(machine, machines.packaged(target), image, folded.input_shape))
    _, arena_bytes = memory.arrange(calls)
    return arena_bytes + max(scratch_bytes(call.spec, machine) for call in calls)


def _step(call: Call, counts: Mapping[str, int], machine: Machine) -> PlannedStep:
    output = call.operands[-1]
    assert isinstance(output, Map | Answer)
    nodes = tuple(call.label.split("+"))
    counted = [node for node in nodes if counts.get(node)]
    return PlannedStep(
        name=", ".join(counted or nodes[:1]),
        nodes=nodes,
        kernel=type(call.spec).__name__.lower(),
        tiles=tuple(_tiles(call.spec)),
        rows=getattr(call.spec, "rows", None),
        parts=1 if call.split is None else -(-output.extents[call.split] // call.grain),
        mult_adds=sum(counts[node] for node in counted),
        scratch_bytes=scratch_bytes(call.spec, machine),
    )


def _tiles(spec: Any) -> list[tuple[int, int]]:
    """The tiles of a specification and of those nested in it."""
    if isinstance(spec, Tile):
        return [(spec.pixels, spec.vectors)]
    if isinstance(spec, Depthwise):
        return [(spec.pixels, 1)]
    parts = [getattr(spec, field.name) for field in fields(spec)] if is_dataclass(spec) else spec
    return [tile for part in parts for tile in _tiles(part)] if isinstance(parts, list | tuple) else []
