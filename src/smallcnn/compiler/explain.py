"""A plan in words and numbers: what became one kernel, in which tiles, how threads share it, what memory it takes.

explain(graph, calls, ...)         of what was compiled
peak_activation_bytes(graph)       of a network that need not be compiled, without Halide
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from smallcnn.compiler import layers, memory, targets
from smallcnn.compiler.calls import Answer, Call, Normalisation, Tensor
from smallcnn.compiler.plan import plan
from smallcnn.compiler.program import Program
from smallcnn.compiler.specs import Depthwise, Tile
from smallcnn.cost import mult_adds
from smallcnn.fold import fold_graph
from smallcnn.graph import Graph

_REFERENCE = "x86-64-linux-avx2"
"""What `peak_activation_bytes` is counted for, on any machine: vectors of 8 floats, the most common ones."""


@dataclass(frozen=True)
class PlannedStep:
    """One step, called after the nodes with Mult-Adds among those it computes, else after the first.

    `tiles` are pixels x vectors of sums in registers, one for each product; `rows` of the output are finished before
    the next (None: no strips). Threads share the output in `parts`; with 1, one thread does it alone.
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
    """The steps, and bytes: one arena for all tensors between steps, scratch for each thread, weights as packed.

    `kernels` are distinct ones, of which `cached` had been compiled before.
    """

    target: str
    steps: tuple[PlannedStep, ...]
    arena_bytes: int
    scratch_bytes_per_thread: int
    weight_bytes: int
    kernels: int
    cached: int


def explain(graph: Graph, calls: Sequence[Call], program: Program, first: Mapping[int, int]) -> Explanation:
    """What `calls` do for `graph` (folded or not), and the totals of the program that they became.

    `first` is what `compile_file` reported first for each total: how many kernels came from the cache.
    """
    counts = {node.name: mult_adds(graph, node) for node in graph}
    kernels = len({call.spec for call in calls})
    return Explanation(
        target=program.target,
        steps=tuple(_step(call, counts) for call in calls),
        arena_bytes=program.arena_bytes,
        scratch_bytes_per_thread=program.scratch_bytes,
        weight_bytes=len(program.weights),
        kernels=kernels,
        cached=first[kernels],
    )


def peak_activation_bytes(graph: Graph) -> int:
    """What a compiled network needs beside its weights: the arena and the scratch of one thread, as planned for two.

    Raises CompileError for an operator that the compiler does not know.
    """
    target = targets.parse(_REFERENCE)
    machine = target.machine
    folded = fold_graph(graph)
    weights = {name: np.zeros(weight.shape, np.float32) for name, weight in folded.weights.items()}
    lowered, answer = layers.lower(folded, weights, machine.vector)
    channels = graph.input_shape[2]
    image = Normalisation(np.ones(channels, np.float32), np.zeros(channels, np.float32))
    calls = plan(lowered, answer, machine, image, folded.input_shape)
    _, floats = memory.arrange(calls)
    return 4 * (floats + max(call.scratch for call in calls))


def _step(call: Call, counts: Mapping[str, int]) -> PlannedStep:
    output = call.operands[-1]
    assert isinstance(output, Tensor | Answer)
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
        scratch_bytes=4 * call.scratch,
    )


def _tiles(spec: Any) -> list[tuple[int, int]]:
    """Those of a specification and of the ones inside it."""
    if isinstance(spec, Tile):
        return [(spec.pixels, spec.vectors)]
    if isinstance(spec, Depthwise):
        return [(spec.pixels, 1)]
    parts = [getattr(spec, field.name) for field in fields(spec)] if is_dataclass(spec) else spec
    return [tile for part in parts for tile in _tiles(part)] if isinstance(parts, list | tuple) else []
