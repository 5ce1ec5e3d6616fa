"""Opening a model file and asking it what is in a picture. numpy and an engine; no torch unless it is the engine.

net = smallcnn.open("model.onnx", threads=1)
net.classify(["a.jpg", pillow_image, array])     -> [Prediction(label, probability, top5), ...]
net.logits(batch)                                uint8 (N, H, W, C) -> float32 (N, classes)
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from smallcnn import artifact as artifacts
from smallcnn.artifact import FORMAT
from smallcnn.cost import profile
from smallcnn.data.decode import Picture
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.engines import ENGINES, Model, Run, open_onnx
from smallcnn.errors import DataError, FileError, SmallcnnError, closest
from smallcnn.metrics import softmax
from smallcnn.probe import probe_answer, probe_image, relative_error


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one picture: the most probable label, and up to five with their probabilities."""

    label: str
    probability: float
    top5: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Net:
    """An opened model file; see `open`."""

    path: Path
    engine: str
    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    facts: dict[str, Any]
    mult_adds: int
    outputs_probabilities: bool
    _expected: Callable[[], np.ndarray]
    _run: Run

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C), prepared -> float32 (N, classes). A file that ends in softmax gives log-probabilities.

        Raises DataError if the batch has another shape or type.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"the network takes uint8 (N, {wanted}), not {batch.dtype} {batch.shape}")
        answer = self._run(batch)
        return np.log(np.maximum(answer, np.finfo(np.float32).tiny)) if self.outputs_probabilities else answer

    def verify(self) -> float:
        """Relative error of this engine on the probe picture, against the plain definition of the network.

        Compare with `probe.TOLERANCE`. The right answer is in the file (.onnx) or computed now (.safetensors).
        """
        return relative_error(self._run(probe_image(self.input_shape))[0], self._expected())

    def classify(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """Decodes, prepares and classifies pictures, one at a time. Raises ImageError for one it cannot decode."""
        if isinstance(pictures, str | bytes | Path | np.ndarray | Image):
            raise DataError("classify takes a list of pictures; for a single one write classify([picture])")
        return [self.classify_prepared(self.preprocessing.prepare(picture)) for picture in pictures]

    def classify_prepared(self, image: np.ndarray) -> Prediction:
        """Classifies one picture that is already at the network's size: uint8 (H, W, C)."""
        probabilities = softmax(self.logits(image[None])[0])
        best = np.argsort(-probabilities, kind="stable")[:5]
        top5 = tuple((self.labels[i], float(probabilities[i])) for i in best)
        return Prediction(*top5[0], top5)


def open(path: str | Path, *, engine: str = "onnxruntime", threads: int | None = None) -> Net:
    """Opens a .safetensors or .onnx model file. `threads` left out is one per core.

    Raises FileError if the file is missing, damaged or not smallcnn's, and SmallcnnError for an unknown engine.
    """
    path = Path(path)
    if engine not in ENGINES:
        raise SmallcnnError(f"no engine {engine!r}; {closest(engine, ENGINES)}")
    if threads is not None and threads < 1:
        raise SmallcnnError(f"threads must be at least 1, not {threads}")
    if path.suffix == ".onnx":
        return _open_onnx(path, engine, threads)
    if path.suffix == ".safetensors":
        return _open_artifact(path, engine, threads)
    if path.is_dir() and (path / "best.safetensors").is_file():
        raise FileError(f"{path}: a folder; its model is {path / 'best.safetensors'}")
    if not path.exists():
        raise FileError(f"{path}: no such file")
    raise FileError(f"{path}: model files end in .safetensors or .onnx; `smallcnn import` makes one of public weights")


def _open_artifact(path: Path, engine: str, threads: int | None) -> Net:
    artifact = artifacts.load(path)
    return Net(
        path=path,
        engine=engine,
        name=artifact.graph.name,
        labels=artifact.labels,
        preprocessing=artifact.preprocessing,
        facts=artifact.facts,
        mult_adds=profile(artifact.graph).mult_adds,
        outputs_probabilities=False,
        _expected=cache(lambda: probe_answer(artifact.graph, artifact.weights, artifact.preprocessing)),
        _run=ENGINES[engine](Model(path, artifact, None), threads),
    )


def _open_onnx(path: Path, engine: str, threads: int | None) -> Net:
    run, metadata = open_onnx(Model(path, None, _read(path)), engine, threads)
    try:
        if metadata["smallcnn.format"] != FORMAT:
            raise FileError(f"written in format {metadata['smallcnn.format']!r}, this smallcnn reads {FORMAT!r}")
        expected = np.array(json.loads(metadata["smallcnn.probe"]), np.float64)
        labels, facts = tuple(json.loads(metadata["smallcnn.labels"])), json.loads(metadata["smallcnn.facts"])
        if not isinstance(facts, dict):
            raise FileError(f"its facts are {type(facts).__name__}, not a JSON object")
        if expected.shape != (len(labels),):
            raise FileError(f"{len(labels)} labels for {expected.size} outputs")
        return Net(
            path=path,
            engine=engine,
            name=metadata["smallcnn.model"],
            labels=labels,
            preprocessing=Preprocessing.from_json(metadata["smallcnn.preprocessing"]),
            facts=facts,
            mult_adds=int(metadata["smallcnn.mult_adds"]),
            outputs_probabilities=metadata["smallcnn.output"] == "probabilities",
            _expected=lambda: expected,
            _run=run,
        )
    except KeyError as error:
        raise FileError(f"{path}: an ONNX file, but not smallcnn's: its metadata has no {error}") from error
    except (ValueError, TypeError) as error:  # FileError is a ValueError too
        raise FileError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
