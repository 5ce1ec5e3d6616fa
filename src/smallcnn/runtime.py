"""Opening a model file and asking it what is in a picture. numpy and an engine; no torch unless it is the engine.

net = smallcnn.open("model.onnx", threads=1)
net.classify(["a.jpg", pillow_image, array])     -> [Prediction(label, probability, top5), ...]
net.logits(batch)                                uint8 (N, H, W, C) -> float32 (N, classes)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from smallcnn import compiled, engines, metadata
from smallcnn.data.decode import Picture
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.ending import PRESENT, Ending, logits_of, probabilities
from smallcnn.engines import Model, Run
from smallcnn.errors import AnswerError, DataError, FileError, SmallcnnError
from smallcnn.model_file import COMPILED, check_kind
from smallcnn.onnx import outline
from smallcnn.probe import agrees, probe_answer, probe_image, relative_error
from smallcnn.shipped import located


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one image: the most probable label, and up to five with their probabilities.

    They are scores instead where the network's `ending` is "none", and independent of each other where it is "sigmoid":
    `present` are the labels whose own probability is at least `ending.PRESENT`, the most probable first.
    """

    label: str
    probability: float
    top5: tuple[tuple[str, float], ...]
    ending: Ending = "softmax"
    present: tuple[tuple[str, float], ...] = ()


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
    ending: Ending
    outputs_probabilities: bool
    _expected: Callable[[], np.ndarray]
    _run: Run
    _check: Callable[[Run], None]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C), prepared -> float32 (N, classes): what comes before the network's ending.

        A file that ends in softmax gives log-probabilities. Raises DataError if the batch has another shape or type,
        AnswerError if an answer is not finite, or if the engine's first answer, to the probe image, is wrong.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"the network takes uint8 (N, {wanted}), not {batch.dtype} {batch.shape}")
        self._check(self._run)
        answer = self._run(batch)
        if not np.isfinite(answer).all():
            raise AnswerError(f"{self.path}: its answer is not a finite number; the model is broken")
        return logits_of(answer, self.ending) if self.outputs_probabilities else answer

    def verify(self) -> float:
        """Relative error of this engine on the probe picture, against the plain definition of the network.

        Compare with `probe.TOLERANCE`. The right answer is in the file, or computed now from a .safetensors.
        """
        return relative_error(self._run(probe_image(self.input_shape))[0], self._expected())

    def classify(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """Decodes, prepares and classifies pictures, one at a time. Raises ImageError for one it cannot decode."""
        if isinstance(pictures, str | bytes | Path | np.ndarray | Image):
            raise DataError("classify takes a list of pictures; for a single one write classify([picture])")
        return [self.classify_prepared(self.preprocessing.prepare(picture)) for picture in pictures]

    def classify_prepared(self, image: np.ndarray) -> Prediction:
        """Classifies one picture that is already at the network's size: uint8 (H, W, C)."""
        answer = probabilities(self.logits(image[None])[0], self.ending)
        ranked = tuple((self.labels[i], float(answer[i])) for i in np.argsort(-answer, kind="stable"))
        present = tuple(one for one in ranked if one[1] >= PRESENT) if self.ending == "sigmoid" else ()
        return Prediction(*ranked[0], ranked[:5], self.ending, present)


def open(path: str | Path, *, engine: str | None = None, threads: int | None = None) -> Net:
    """Opens a .safetensors, .onnx or compiled model file. `threads` left out is one per core.

    `engine` left out is onnxruntime, or for a compiled file the file itself, which no other engine runs. A compiled
    file is a program, and runs when it is opened.

    Raises FileError if the file is missing, damaged or not smallcnn's, and SmallcnnError for an engine that does not
    exist or does not run such a file.
    """
    path = located(path)
    if engine is not None:
        engines.check_engine(engine)
    if threads is not None and threads < 1:
        raise SmallcnnError(f"threads must be at least 1, not {threads}")
    check_kind(path, engines.SUFFIXES)
    engine = engines.choose(path, engine)
    if path.suffix.lower() == ".safetensors":
        return _open_artifact(path, engine, threads)
    if path.suffix.lower() in COMPILED:
        file = compiled.load(path, threads)
        return _converted(path, engine, file.metadata, file.run)
    if "smallcnn.format" not in outline.metadata(path):  # known before any engine looks at the file
        made = path.with_suffix(".safetensors")
        raise FileError(f"{path}: not written by smallcnn; import it with: smallcnn import {path} --out {made}")
    run, entries = engines.open_onnx(Model(path), engine, threads)
    return _converted(path, engine, entries, run)


def _open_artifact(path: Path, engine: str, threads: int | None) -> Net:
    from smallcnn import artifact as artifacts
    from smallcnn.cost import profile

    artifact = artifacts.load(path)
    artifacts.check_finite(artifact, path)
    model = Model(path, artifact)
    image = probe_image(artifact.graph.input_shape)
    return Net(
        path=path,
        engine=engine,
        name=artifact.graph.name,
        labels=artifact.labels,
        preprocessing=artifact.preprocessing,
        facts=artifact.facts,
        mult_adds=profile(artifact.graph).mult_adds,
        ending=artifact.ending,
        outputs_probabilities=False,
        _expected=cache(lambda: probe_answer(artifact.graph, artifact.weights, artifact.preprocessing)),
        _run=engines.start(model, engine, threads),
        _check=_once(path, engine, image, lambda: engines.plain_answer(model, image)),
    )


def _converted(path: Path, engine: str, entries: dict[str, str], run: Run) -> Net:
    try:
        said = metadata.parse(entries)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    image = probe_image((*said.preprocessing.size, said.preprocessing.channels))
    return Net(
        path=path,
        engine=engine,
        name=said.name,
        labels=said.labels,
        preprocessing=said.preprocessing,
        facts=said.facts,
        mult_adds=said.mult_adds,
        ending=said.ending,
        outputs_probabilities=said.outputs_probabilities,
        _expected=lambda: said.answer,
        _run=run,
        _check=_once(path, engine, image, lambda: said.answer),
    )


def _once(path: Path, engine: str, image: np.ndarray, expected: Callable[[], np.ndarray]) -> Callable[[Run], None]:
    """A check of an engine that is made when it is first asked for, and forgets then what it needed."""
    waiting = [expected]

    def check(run: Run) -> None:
        if not waiting:
            return
        wanted = waiting[0]()
        error = relative_error(run(image)[0], wanted)
        if np.isfinite(wanted).all() and not agrees(error):  # otherwise each answer that is not finite is refused
            raise AnswerError(
                f"{path}: {engine} gives a wrong answer on the probe image, off by {error:.1e} of its largest output; "
                "the file was changed, or the engine is at fault: try another --engine"
            )
        waiting.clear()

    return check
