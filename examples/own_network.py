"""A network of your own, from the first layer to a working ONNX file: a few seconds on two cores.

python examples/own_network.py
"""

import sys
import tempfile
from pathlib import Path

import smallcnn
from smallcnn import onnx
from smallcnn.evaluate import evaluate
from smallcnn.model import store
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train


def build() -> smallcnn.Graph:
    """Two depthwise separable blocks for 8x8 grey images."""
    g = smallcnn.Builder(input=(8, 8, 1))
    x = g.conv_bn(g.input, 16, kernel=3, name="stem")
    for i, out in enumerate((32, 64)):
        x = g.depthwise_bn(x, kernel=3, stride=2, name=f"block{i}.depthwise")
        x = g.conv_bn(x, out, name=f"block{i}.pointwise")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 10, name="classifier"), features=x, name="own")


def main(epochs: int = 40) -> None:
    graph = build()
    cost = smallcnn.profile(graph)
    print(f"{cost.mult_adds:,} Mult-Adds, {cost.parameters:,} parameters")
    with tempfile.TemporaryDirectory() as folder:
        run = train(graph, "digits", Path(folder) / "run", recipe=Recipe(epochs=epochs, batch_size=32))
        onnx.export(store.load(run.last), Path(folder) / "own.onnx")
        result = evaluate(smallcnn.open(Path(folder) / "own.onnx"), "digits")
        print(f"top-1 {result.metrics.top1:.1%} on {result.metrics.images} unseen digits, in ONNX Runtime")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
