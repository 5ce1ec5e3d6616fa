"""ResNet-20, the usual baseline on CIFAR-10, trained and evaluated: a minute on digits, hours on CIFAR-10.

python examples/resnet20.py [EPOCHS [DATA]]          DATA: digits, cifar10 or another colour set of ten classes
"""

import sys
import tempfile
from pathlib import Path

import smallcnn
from smallcnn.evaluate import evaluate
from smallcnn.study.resnet import resnet20
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train


def main(epochs: int = 40, data: str = "digits") -> None:
    graph = resnet20(resolution=8, channels=1) if data == "digits" else resnet20()
    cost = smallcnn.profile(graph)
    print(f"{cost.mult_adds:,} Mult-Adds, {cost.parameters:,} parameters")
    with tempfile.TemporaryDirectory() as folder:
        run = train(graph, data, Path(folder) / "run", recipe=Recipe(epochs=epochs, val_fraction=0.1))
        result = evaluate(smallcnn.open(run.last), data, part="test")
    print(f"top-1 {result.metrics.top1:.1%} on {result.metrics.images} unseen images of {data}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
