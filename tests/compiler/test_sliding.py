"""Chains compute no row of a stage twice: Halide says of which stages it found that."""

import os
import pickle
import re
import subprocess
import sys

import pytest

from planned_networks import context_of, layers_of
from smallcnn.compiler import calls, specs
from smallcnn.compiler.space import choices
from smallcnn.ir.builder import Builder

_LOWER = """
import pickle, sys
import halide as hl
from smallcnn.compiler.kernels import pipeline
spec, machine = pickle.load(sys.stdin.buffer)
made, operands = pipeline(spec, machine)
made.compile_to_lowered_stmt(sys.argv[1], operands, hl.StmtOutputFormat.Text, hl.Target(machine.target))
"""


def slid(spec, machine, path):
    """The stages that Halide computes only where the strip before did not."""
    command = [sys.executable, "-c", _LOWER, str(path)]
    env = {**os.environ, "HL_DEBUG_CODEGEN": "3"}
    content = pickle.dumps((spec, machine))
    done = subprocess.run(command, input=content, env=env, capture_output=True, check=True, timeout=100)
    return set(re.findall(r"^Sliding (\S+), y$", done.stderr.decode(errors="replace"), re.MULTILINE))


def first_blocks(blocks):
    g = Builder(input=(96, 96, 3))
    x = g.activation(g.conv(g.input, 16, kernel=3, stride=2), "relu")
    for i in range(blocks):
        x = g.activation(g.depthwise(x, kernel=3, stride=1 + i), "relu")
        x = g.activation(g.conv(x, 32), "relu")
    return g.graph(g.dense(g.global_pool(x), 10), features=x, name="blocks")


def inverted_residual():
    g = Builder(input=(48, 48, 3))
    x = g.conv(g.input, 16, kernel=3)
    y = g.activation(g.conv(x, 96), "relu")
    y = g.activation(g.depthwise(y, kernel=3), "relu")
    x = g.conv(y, 24)
    return g.graph(g.dense(g.global_pool(x), 10), features=x, name="residual")


def pooled():
    g = Builder(input=(64, 64, 3))
    x = g.activation(g.conv(g.input, 24, kernel=3, stride=2), "relu")
    x = g.max_pool(x, kernel=3, stride=2)
    return g.graph(g.dense(g.global_pool(x), 10), features=x, name="pooled")


@pytest.mark.parametrize(
    ("graph", "length"),
    [(first_blocks(1), 3), (first_blocks(2), 5), (inverted_residual(), 3), (pooled(), 2)],
    ids=["first block", "two blocks", "inverted residual", "pool"],
)
def test_no_row_is_computed_twice(graph, length, tmp_path):
    context = context_of(graph)
    layers = layers_of(graph, context)
    start = next(i for i, layer in enumerate(layers) if layer.op != "image")
    if graph.name == "residual":
        start += 1
    group = layers[start : start + length]
    found = choices(group, context, 1)
    for choice in {found[0], max(found, key=lambda choice: choice.rows)}:
        spec = calls.call(group, choice, context).spec
        assert isinstance(spec, specs.Chain)
        assert len(slid(spec, context.machine, tmp_path / "lowered")) == sum(spec.windowed)
