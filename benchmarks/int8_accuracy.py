"""Accuracy of int8 networks, and what each step of quantizing gains: top-1, and agreement with the float network.

    python benchmarks/int8_accuracy.py IMAGES FILE...

IMAGES is a folder with one folder per class, FILE a float model file. Every sixth image calibrates, the others judge.
The int8 networks run in ONNX Runtime on its integer kernels. Prints a table in Markdown.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.data.loader import prepared_batches
from smallcnn.data.sources import Split, open_source
from smallcnn.engines.operators import Operators
from smallcnn.evaluate import targets_for
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.transform.quantize import Settings, quantize

_PLAIN = Settings(ranges="min-max", equalise=False, copy_channels=False, compensate=False, correct_bias=False)

ROWS = {
    "one scale per layer": replace(_PLAIN, per_tensor=True),
    "one scale per output": _PLAIN,
    "+ ranges by error": replace(_PLAIN, ranges="best"),
    "+ equalised channels": replace(_PLAIN, equalise=True),
    "+ compensated rounding": replace(_PLAIN, compensate=True),
    "+ corrected biases": replace(_PLAIN, correct_bias=True),
    "all but spare channels": Settings(copy_channels=False),
    "all (`smallcnn quantize`)": Settings(),
}
"""Each row with a plus adds one step to "one scale per output"."""


def main() -> None:
    """Prints the table of the files on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    print("| network | quantized | top-1 | agreement |")
    print("|---|---|---:|---:|")
    for file in chosen.files:
        table(file, chosen.images, chosen.threads)


def table(file: Path, images: Path, threads: int | None) -> None:
    """Prints the rows of one network."""
    model = read(file)
    source = open_source(images)
    split = source.everything()
    calibration, judging = (
        split.subset([i for i in range(len(split)) if (i % 6 == 0) == first]) for first in (True, False)
    )
    targets = targets_for(model.task, source, judging)
    learned, _ = pixels(model, calibration)
    judged, indices = pixels(model, judging)
    right = targets[indices]
    exact = answers(model, judged, threads)
    say(file.stem, "float", exact, right, exact)
    for name, settings in ROWS.items():
        made, _ = quantize(model, learned, settings, operators=lambda graph: Operators(graph, threads))
        say("", name, answers(made, judged, threads), right, exact)


def pixels(model: Model, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The prepared images of a split, and their places in it."""
    batches = list(prepared_batches(split, model.preprocessing, batch_size=64))
    return np.concatenate([batch.images for batch in batches]), np.concatenate([batch.indices for batch in batches])


def answers(model: Model, images: np.ndarray, threads: int | None) -> np.ndarray:
    """The class of each image."""
    net = runtime.of(model, threads=threads)
    return np.concatenate([net.logits(images[start : start + 16]).argmax(1) for start in range(0, len(images), 16)])


def say(network: str, name: str, found: np.ndarray, right: np.ndarray, exact: np.ndarray) -> None:
    """Prints one row."""
    print(f"| {network} | {name} | {(found == right).mean():.1%} | {(found == exact).mean():.1%} |", flush=True)


if __name__ == "__main__":
    main()
