"""Imported detectors against their original files: COCO's figures on the same images, from the same judge.

    python benchmarks/imported_detectors.py SOURCE FILE...

SOURCE has boxes of COCO's classes; all of its images are used. FILE is one of two kinds:

- a TensorFlow Lite file that ends in TFLite_Detection_PostProcess; its original runs in LiteRT (`ai-edge-litert`)
- FastestDet's ONNX file; its original runs in ONNX Runtime and is decoded here as its authors do to evaluate it: of a
  cell, only the best class. Objects count from a score of 0.01

Both get the images as the import prepares them. Prints a table in Markdown.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.data.loader import prepared_batches
from smallcnn.data.sources import Source, open_source
from smallcnn.evaluate import targets_for
from smallcnn.image.geometry import Seen
from smallcnn.model.model import Model
from smallcnn.tasks import coco
from smallcnn.tasks.detection import BOXES, CLASSES, COUNT, SCORES, Detection, answers_of
from smallcnn.tasks.objects import Detections, Objects
from smallcnn.transform.limits import Limits, limited

_LEAST, _OVERLAP, _MOST = 0.01, 0.45, 100
"""Of FastestDet: least score, and the overlap above which its authors' program suppresses a box."""

Outputs = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
"""A uint8 batch (N, H, W, 3) -> a detector's outputs, as `tasks.detection` has them."""


def main() -> None:
    """Prints the rows of the files on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    source = open_source(chosen.source)
    print("| file | as | AP | AP50 |")
    print("|---|---|---:|---:|")
    for path in chosen.files:
        tflite = path.suffix == ".tflite"
        model = import_checkpoint([path], integer=False)
        say(path.name, "original", judged(source, model, by_litert(path) if tflite else by_its_authors(path)))
        for integer in (False, True) if tflite else (False,):
            model = import_checkpoint([path], integer=integer)
            if not tflite:
                model = replace(model, graph=limited(model.graph, Limits(threshold=_LEAST)))
            net = runtime.of(model, threads=chosen.threads)
            say("", "imported, whole numbers" if integer else "imported, float", judged(source, model, net.run))


def judged(source: Source, model: Model, run: Run) -> dict[str, float]:
    """COCO's figures on all images, prepared as `model` says."""
    split, task = source.everything(), model.task
    assert isinstance(task, Detection)
    known = np.isin(task.labels, source.classes)
    found: list[Outputs] = []
    seen: list[Seen] = []
    indices: list[int] = []
    for batch in prepared_batches(split, model.preprocessing, batch_size=16):
        found.append(run(batch.images))
        seen += batch.seen
        indices += batch.indices.tolist()
    outputs = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    answers = [answer.take(known[answer.classes]) for answer in answers_of(task, outputs, seen)]
    objects = Objects.of(targets_for(task, source, split)[indices])
    return coco.judge(objects, Detections.of(answers), len(task.labels)).scores


def by_litert(path: Path) -> Run:
    """The file in LiteRT, image by image. Its boxes are top, left, bottom, right."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (image,), ends = interpreter.get_input_details(), interpreter.get_output_details()

    def run(batch: np.ndarray) -> Outputs:
        rows = []
        for pixels in batch:
            interpreter.set_tensor(image["index"], pixels[None])
            interpreter.invoke()
            rows.append([interpreter.get_tensor(end["index"])[0].copy() for end in ends])
        boxes, classes, scores, count = (np.stack(each) for each in zip(*rows, strict=True))
        return {BOXES: boxes[..., [1, 0, 3, 2]], SCORES: scores, CLASSES: classes, COUNT: count[:, None]}

    return run


def by_its_authors(path: Path) -> Run:
    """FastestDet in ONNX Runtime: the best class of each cell, and boxes that suppress others of their class."""
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name

    def run(batch: np.ndarray) -> Outputs:
        made = {BOXES: (4,), SCORES: (), CLASSES: ()}
        outputs = {key: np.zeros((len(batch), _MOST, *rest), np.float32) for key, rest in made.items()}
        outputs[COUNT] = np.zeros((len(batch), 1), np.float32)
        for i, pixels in enumerate(batch):
            fed = pixels[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
            (cells,) = session.run(None, {name: fed})[0].astype(np.float64)
            kept = _kept(*_decoded(cells))
            outputs[COUNT][i] = len(kept)
            for row, (score, number, box) in enumerate(kept):
                outputs[BOXES][i, row], outputs[SCORES][i, row], outputs[CLASSES][i, row] = box, score, number
        return outputs

    return run


def _decoded(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4), scores and classes (N,) of a map (85, H, W) of objectness, code and probabilities."""
    _, height, width = cells.shape
    rows, columns = np.mgrid[:height, :width]
    centre = np.stack([(np.tanh(cells[1]) + columns) / width, (np.tanh(cells[2]) + rows) / height], -1)
    size = 1 / (1 + np.exp(-cells[3:5].transpose(1, 2, 0)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1).reshape(-1, 4)
    scores = cells[0] ** 0.6 * cells[5:].max(0) ** 0.4
    return boxes, scores.reshape(-1), cells[5:].argmax(0).reshape(-1)


def _kept(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[tuple[float, int, np.ndarray]]:
    """Score, class and box of the objects that greedy suppression leaves, by falling score."""
    kept: list[tuple[float, int, np.ndarray]] = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] <= _LEAST or len(kept) == _MOST:
            break
        if all(_shared(boxes[place], box) <= _OVERLAP for _, number, box in kept if number == classes[place]):
            kept.append((float(scores[place]), int(classes[place]), boxes[place]))
    return kept


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    both = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


def say(name: str, how: str, scores: dict[str, float]) -> None:
    """Prints one row."""
    print(f"| {name} | {how} | {scores['map']:.1%} | {scores['map50']:.1%} |", flush=True)


if __name__ == "__main__":
    main()
