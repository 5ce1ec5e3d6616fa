"""Ways to fewer bytes at about the same bytes, with training and without: the CIFAR-10 table of docs/compress.md.

    python benchmarks/equal_bytes.py FILE --data SOURCE --out FOLDER [--ways TEXT;TEXT] [--seeds 0,1,2]
    python benchmarks/equal_bytes.py FILE --data SOURCE --out FOLDER --table

Each run is one of `smallcnn compress`, in FOLDER: one that was stopped resumes, one that has finished is not repeated.
`--table` prints a row in Markdown for each step of the runs that have finished: top-1 by seed, and bytes of the file.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import click

from smallcnn.compress.pipeline import Step, compress
from smallcnn.compress.sharing import Hash, Product, Share, Zeros
from smallcnn.compress.workshop import Workshop
from smallcnn.ir import ops
from smallcnn.model.model import Model
from smallcnn.model.shipped import located
from smallcnn.transform.fold import fold
from smallcnn.transform.share.codebook import codebook
from smallcnn.transform.share.product import Codewords
from smallcnn.transform.share.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class Means:
    """k-means alone: at most 2^bits values in a layer, and nothing makes up for the errors."""

    kind: ClassVar[str] = "means"
    trains: ClassVar[bool] = False
    bits: int

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model with batch norm folded, and its values."""
        return shop.once("values", lambda: self._replaced(model))

    def _replaced(self, model: Model) -> Model:
        graph, weights = fold(model.graph, model.weights)
        for node in graph:
            if isinstance(node.op, ops.Conv | ops.Dense):
                weight = weights[f"{node.name}.weight"]
                weights[f"{node.name}.weight"] = codebook(weight, 2**self.bits).nearest(weight).astype("float32")
        return replace(model, graph=graph, weights=weights)


def _deep(zeros: float, bits: int, rounds: int = 1) -> Callable[[int], list[Step]]:
    """Zeros, then values: Deep Compression. Two thirds of the epochs train the zeros."""
    sharing = Sharing(bits=bits, zeros=zeros)
    return lambda epochs: [
        Zeros(zeros=zeros, rounds=rounds, epochs=2 * epochs // 3), Share(sharing=sharing, epochs=epochs // 3)
    ]  # fmt: skip


WAYS: dict[str, Callable[[int], list[Step]]] = {
    "50 % zeros, 4 bit": _deep(0.5, 4),
    "60 % zeros, 4 bit": _deep(0.6, 4),
    "70 % zeros, 4 bit": _deep(0.7, 4),
    "80 % zeros, 4 bit": _deep(0.8, 4, rounds=2),
    "3 bit": lambda epochs: [Share(sharing=Sharing(bits=3), epochs=epochs // 3)],
    "k-means alone, 3 bit": lambda epochs: [Means(bits=3)],
    "12 codewords of 2": lambda epochs: [Product(codewords=Codewords(words=12, length=2))],
    "8 codewords of 2": lambda epochs: [Product(codewords=Codewords(words=8, length=2))],
    "hashed, 0.17 of the values": lambda epochs: [Hash(share=0.17, epochs=epochs)],
}
"""From the epochs of training to the steps of a run."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="images with labels, as for `smallcnn compress`")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the runs")
@click.option("--ways", default=";".join(WAYS), show_default=True, help="which of them, with ; between")
@click.option("--seeds", default="0", show_default=True)
@click.option("--epochs", default=3, show_default=True, help="epochs of training in all")
@click.option("--threads", default=1, show_default=True)
@click.option("--table", is_flag=True, help="train nothing, print the table")
def main(file: Path, data: str, out: Path, ways: str, seeds: str, epochs: int, threads: int, table: bool) -> None:
    """Compress FILE in each way, or print the table of the runs that have finished."""
    out.mkdir(parents=True, exist_ok=True)
    if table:
        _print(out)
        return
    for seed, way in product(seeds.split(","), ways.split(";")):
        name = f"{re.sub(r'[^a-z0-9]+', '-', way)}-{epochs}-{seed}"
        if (out / f"{name}.json").is_file():
            continue
        found = compress(
            located(file), data, out / f"{name}.safetensors", WAYS[way](epochs), anyway=True, seed=int(seed),
            threads=threads, say=lambda line, name=name: click.echo(f"{name}: {line}", err=True),
        )  # fmt: skip
        record = {
            "way": way, "epochs": epochs, "images": found.judged, "split": found.part,
            "rows": [asdict(row) for row in found.rows],
        }  # fmt: skip
        (out / f"{name}.json").write_text(json.dumps(record, indent=1))


def _print(out: Path) -> None:
    """The table of all runs that have finished."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*.json")):
        record = json.loads(path.read_text())
        runs.setdefault((record["way"], record["epochs"]), []).append(record)
    first = next(iter(runs.values()))[0]
    whole = first["rows"][0]
    print("| way | step | top-1, % | n | points | bytes | times smaller |")
    print("|---|---|---:|---:|---:|---:|---:|")
    print(f"| float32 | | {100 * whole['score']:.2f} | | | {whole['bytes']:,} | |")
    for (way, _), found in runs.items():
        for steps in list(zip(*(record["rows"] for record in found), strict=True))[1:]:
            scores, size = [100 * row["score"] for row in steps], round(mean(row["bytes"] for row in steps))
            spread = f" ({min(scores):.2f} to {max(scores):.2f})" if len(scores) > 1 else ""
            cells = [
                way, steps[0]["name"], f"{mean(scores):.2f}{spread}", str(len(scores)),
                f"{mean(scores) - 100 * whole['score']:+.2f}", f"{size:,}", f"{whole['bytes'] / size:.1f}",
            ]  # fmt: skip
            print("|", " | ".join(cells), "|")
    print(f"\n{first['images']} images ({first['split']})")


if __name__ == "__main__":
    main()
