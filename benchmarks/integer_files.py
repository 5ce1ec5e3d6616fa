"""Quantized TensorFlow Lite files as networks of whole numbers: top-1 of ours and of LiteRT, and how often they agree.

    python benchmarks/integer_files.py shared/weights/*quant.tflite --images shared/data/imagenet_val_650.tar

The archive holds images, already cropped, and a labels.csv with the columns file and label. LiteRT's answer may be
several classes, as its probabilities are bytes; ours agrees if it is one of them.
"""

import csv
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.image.overrides import Overrides


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--images", required=True, type=click.Path(path_type=Path), help="tar archive with labels.csv")
@click.option("--crop", default=1.0, show_default=True, help="share of the shorter side to keep")
@click.option("--engine", default="onnxruntime", show_default=True, help="engine that runs our network")
@click.option("--threads", default=1, show_default=True, help="threads of both")
def main(files: Sequence[Path], images: Path, crop: float, engine: str, threads: int) -> None:
    """Print a row for each file."""
    contents, labels = _read(images)
    print("| network | images | top-1 | LiteRT | agree | tied |\n|---|---:|---:|---:|---:|---:|")
    for file in files:
        model = import_checkpoint([file], keep_background=True, overrides=Overrides(crop=crop))
        batch = np.stack([model.preprocessing.prepare(content).pixels for content in contents])
        net = runtime.of(model, engine=engine, threads=threads)
        first = len(model.labels) - 1000  # TensorFlow's networks have a class for the background before the 1,000
        ours = np.concatenate([net.logits(part) for part in np.array_split(batch, len(batch) // 16)]).argmax(1)
        theirs = _litert(file, batch, threads)
        best = theirs == theirs.max(1, keepdims=True)
        print(
            f"| {file.stem} | {len(batch)} | {100 * np.mean(ours - first == labels):.1f} | "
            f"{100 * np.mean(theirs.argmax(1) - first == labels):.1f} | "
            f"{100 * np.mean(best[np.arange(len(ours)), ours]):.1f} | {np.mean(best.sum(1) > 1) * 100:.1f} |",
            flush=True,
        )


def _read(path: Path) -> tuple[list[bytes], np.ndarray]:
    """The images, and the class of each."""
    with tarfile.open(path) as archive:
        members = {member.name.rpartition("/")[2]: member for member in archive.getmembers() if member.isfile()}

        def content(name: str) -> bytes:
            file = archive.extractfile(members[name])
            assert file is not None
            return file.read()

        rows = list(csv.DictReader(io.StringIO(content("labels.csv").decode())))
        return [content(row["file"]) for row in rows], np.array([int(row["label"]) for row in rows])


def _litert(path: Path, batch: np.ndarray, threads: int) -> np.ndarray:
    """LiteRT's output for bytes (N, H, W, C), as its file stores it."""
    from ai_edge_litert.interpreter import Interpreter

    judge = Interpreter(str(path), num_threads=threads)
    judge.allocate_tensors()
    (image,), (output,) = judge.get_input_details(), judge.get_output_details()
    if image["dtype"] == np.int8:
        batch = (batch.astype(np.int16) - 128).astype(np.int8)
    answers = []
    for pixels in batch:
        judge.set_tensor(image["index"], pixels[None])
        judge.invoke()
        answers.append(judge.get_tensor(output["index"])[0].copy())
    return np.stack(answers)


if __name__ == "__main__":
    main()
