"""A network of your own, from the first layer to an ONNX file that answers: about half a minute on two cores.

python examples/own_network.py
"""

import sys
import tempfile
from pathlib import Path

import torch

import smallcnn
from smallcnn import onnx
from smallcnn.artifact import Artifact
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.data.sources import open_source
from smallcnn.module import to_weights


def build() -> smallcnn.Graph:
    """Two depthwise separable blocks for 8x8 grey pictures."""
    g = smallcnn.Builder(input=(8, 8, 1))
    x = g.conv_bn(g.input, 16, kernel=3, name="stem")
    for i, out in enumerate((32, 64)):
        x = g.depthwise_bn(x, kernel=3, stride=2, name=f"block{i}.depthwise")
        x = g.conv_bn(x, out, name=f"block{i}.pointwise")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 10, name="classifier"), features=x, name="own")


def main(epochs: int = 40) -> float:
    graph = build()
    cost = smallcnn.profile(graph)
    print(f"{cost.mult_adds:,} Mult-Adds, {cost.parameters:,} parameters")

    source, preprocessing = open_source("digits"), Preprocessing((8, 8), (0.5,), (0.5,), crop=1.0)
    train, test = source.splits["train"], source.splits["test"]
    x = torch.from_numpy(preprocessing.normalise(train.images[..., None])).permute(0, 3, 1, 2)
    y = torch.from_numpy(train.labels)

    torch.manual_seed(0)
    model = smallcnn.to_module(graph)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.onnx"
        onnx.export(Artifact(graph, to_weights(model), source.classes, preprocessing), path)
        net = smallcnn.open(path)
        right = (net.logits(test.images[..., None]).argmax(1) == test.labels).mean()
    print(f"top-1 {right:.1%} on {len(test)} unseen digits, in ONNX Runtime")
    return float(right)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
