"""Accuracy against bytes: what sharing weights, zeros and codewords cost without any training.

    python benchmarks/weight_sharing.py IMAGES FILE... [--ways TEXT,TEXT] [--plot FILE.svg]

IMAGES is a folder with one folder per class, FILE a float model file. Every sixth image shows which weights matter,
without its label; the others judge, in ONNX Runtime. Bytes are those of the whole packed file. Prints a table in
Markdown: top-1, agreement with the float network, bytes, and how many times smaller than the float file.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from int8_accuracy import answers, pixels
from smallcnn.data.sources import open_source
from smallcnn.engines.operators import Operators
from smallcnn.evaluate import targets_for
from smallcnn.ir import ops
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.model.store import save
from smallcnn.transform.fold import fold
from smallcnn.transform.quantize import Settings, quantize
from smallcnn.transform.share.codebook import codebook
from smallcnn.transform.share.low_rank import low_rank
from smallcnn.transform.share.product import Codewords, quantize_products
from smallcnn.transform.share.sharing import Sharing, share

Way = Callable[[Model, np.ndarray, int], Model]
"""From a float model, calibration images (N, H, W, C) and threads to a smaller model."""

_KEEPING = Settings(per_tensor=True, equalise=False, copy_channels=False, compensate=False)
"""Settings of `quantize` with which weights that are equal stay equal."""


def _shared(sharing: Sharing, model: Model, images: np.ndarray, threads: int) -> Model:
    return share(model, images, sharing, operators=lambda graph: Operators(graph, threads))[0]


def _within(part: int, model: Model, images: np.ndarray, threads: int) -> Model:
    """Bits by sensitivity: the weights in one `part`th of their bytes as float32."""
    budget = sum(4 * value.size for value in model.weights.values()) // part
    return _shared(Sharing(budget=budget), model, images, threads)


def _plain(bits: int, model: Model, images: np.ndarray, threads: int) -> Model:  # noqa: ARG001
    """k-means alone: nothing makes up for its errors."""
    graph, weights = fold(model.graph, model.weights)
    for node in graph:
        if isinstance(node.op, ops.Conv | ops.Dense):
            weight = weights[f"{node.name}.weight"]
            weights[f"{node.name}.weight"] = codebook(weight, 2**bits).nearest(weight).astype(np.float32)
    return replace(model, graph=graph, weights=weights)


def _products(codewords: Codewords, model: Model, images: np.ndarray, threads: int) -> Model:
    return quantize_products(model, images, codewords, operators=lambda graph: Operators(graph, threads))[0]


def _thin(part: float, model: Model, images: np.ndarray, threads: int) -> Model:
    return low_rank(model, images, part, operators=lambda graph: Operators(graph, threads))


def _int8(settings: Settings, model: Model, images: np.ndarray, threads: int) -> Model:
    return quantize(model, images, settings, operators=lambda graph: Operators(graph, threads))[0]


def _int8_of(bits: int, model: Model, images: np.ndarray, threads: int) -> Model:
    """Shared weights that quantizing keeps equal."""
    return _int8(_KEEPING, _shared(Sharing(bits=bits), model, images, threads), images, threads)


WAYS: dict[str, Way] = {
    "packed only": lambda model, images, threads: model,
    "6 bit": partial(_shared, Sharing(bits=6)),
    "5 bit": partial(_shared, Sharing(bits=5)),
    "5 bit, k-means alone": partial(_plain, 5),
    "4 bit": partial(_shared, Sharing(bits=4)),
    "3 bit": partial(_shared, Sharing(bits=3)),
    "1/6, bits by sensitivity": partial(_within, 6),
    "1/7, bits by sensitivity": partial(_within, 7),
    "1/8, bits by sensitivity": partial(_within, 8),
    "1/10, bits by sensitivity": partial(_within, 10),
    "1/12, bits by sensitivity": partial(_within, 12),
    "1/15, bits by sensitivity": partial(_within, 15),
    "33 % zeros": partial(_shared, Sharing(zeros=0.33)),
    "33 % zeros, 5 bit": partial(_shared, Sharing(zeros=0.33, bits=5)),
    "50 % zeros, 5 bit": partial(_shared, Sharing(zeros=0.5, bits=5)),
    "16 codewords of 2": partial(_products, Codewords(words=16, length=2)),
    "low rank, 0.8 of Mult-Adds": partial(_thin, 0.8),
    "int8": partial(_int8, Settings()),
    "int8 of 5 bit": partial(_int8_of, 5),
}
"""Rows of the table."""


def main() -> None:
    """Prints the table of the files on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--ways", default=";".join(WAYS), help="rows of the table, separated by semicolons")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    print("| network | weights | top-1 | agreement | bytes | smaller |")
    print("|---|---|---:|---:|---:|---:|")
    curves = {file.stem: table(file, chosen.images, chosen.ways.split(";"), chosen.threads) for file in chosen.files}
    if chosen.plot:
        plot(curves, chosen.plot)


def table(file: Path, images: Path, ways: list[str], threads: int) -> dict[str, tuple[int, float]]:
    """Prints the rows of one network; bytes and top-1 of each."""
    model = read(file)
    source = open_source(images)
    split = source.everything()
    calibration, judging = (
        split.subset([i for i in range(len(split)) if (i % 6 == 0) == first]) for first in (True, False)
    )
    targets = targets_for(model.task, source, judging)
    learned, _ = pixels(model, calibration)
    judged, indices = pixels(model, judging)
    right, whole = targets[indices], file.stat().st_size
    exact = answers(model, judged, threads)
    found = {"float32": (whole, float((exact == right).mean()))}
    print(f"| {file.stem} | float32 | {found['float32'][1]:.1%} | | {whole:,} | 1.0 |", flush=True)
    for name in ways:
        made = WAYS[name](model, learned, threads)
        with tempfile.TemporaryDirectory() as folder:
            save(made, Path(folder) / "packed.safetensors", packed=True)
            size = (Path(folder) / "packed.safetensors").stat().st_size
        given = answers(made, judged, threads)
        found[name] = (size, float((given == right).mean()))
        agreement = (given == exact).mean()
        print(f"| | {name} | {found[name][1]:.1%} | {agreement:.1%} | {size:,} | {whole / size:.1f} |", flush=True)
    return found


def plot(curves: dict[str, dict[str, tuple[int, float]]], path: Path) -> None:
    """Draws top-1 against bytes, a panel for each network."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(7 * len(curves), 5), squeeze=False)
    for panel, (network, rows) in zip(panels[0], curves.items(), strict=True):
        for name, (size, score) in rows.items():
            panel.plot(size / 1e6, 100 * score, "o")
            panel.annotate(name, (size / 1e6, 100 * score), fontsize=7, xytext=(4, 3), textcoords="offset points")
        panel.set(title=network, xlabel="file, MB", ylabel="top-1, %", xscale="log")
        panel.axhline(100 * rows["float32"][1] - 1, color="gray", linewidth=0.7, linestyle="--")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
