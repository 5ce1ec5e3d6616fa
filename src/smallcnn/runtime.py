"""Opens a model file and classifies images with it. Needs numpy and an engine, and torch only as the engine.

net = smallcnn.open("model.onnx", threads=1)
net.classify(["a.jpg", pillow_image, array])     -> [Prediction(label, probability, ranked), ...]
net.logits(batch)                                uint8 (N, H, W, C) -> float32 (N, classes)
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from smallcnn.engines import compiled
from smallcnn.engines import engine as engines
from smallcnn.engines.engine import Loadable
from smallcnn.errors import AnswerError, DataError, FileError, SmallcnnError
from smallcnn.image.decode import ImageInput
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import LOGITS
from smallcnn.model import metadata
from smallcnn.model.kinds import COMPILED, check_kind
from smallcnn.model.probe import agrees, output_error, probe_answer, probe_image
from smallcnn.model.shipped import located
from smallcnn.onnx.read import outline
from smallcnn.system.escape import escaped
from smallcnn.system.fork import Run
from smallcnn.tasks.classification import Classification, Prediction, classification
from smallcnn.tasks.ending import Ending, logits_of

MOST_THREADS = 256
"""Threads that an engine may be asked for; more than a machine has cores make it crawl."""


@dataclass(frozen=True, repr=False)
class Net:
    """An opened model file; see `open`."""

    path: Path
    engine: str
    threads: int | None
    name: str
    task: Classification
    preprocessing: Preprocessing
    facts: dict[str, Any]
    mult_adds: int
    outputs_probabilities: bool
    _opened: Path
    _expected: Callable[[], np.ndarray]
    _run: Run
    _check: Callable[[Run, tuple[int, int, int]], None]

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

    @property
    def ending(self) -> Ending:
        """The function from logits to probabilities."""
        return self.task.ending

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Logits: a prepared uint8 batch (N, H, W, C) -> float32 (N, classes), before the network's ending.

        A file that ends in softmax gives log-probabilities. Raises DataError if the batch has another shape or type,
        AnswerError if an answer is not finite or the engine fails the check on the probe image before its first run.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"the network takes uint8 (N, {wanted}), not {batch.dtype} {batch.shape}")
        self._check(self._run, self.input_shape)
        answer = self._run(batch)
        if not np.isfinite(answer).all():
            raise AnswerError(f"{self.path}: its answer is not a finite number; the model is broken")
        return logits_of(answer, self.ending) if self.outputs_probabilities else answer

    def verify(self) -> float:
        """Relative error of this engine on the probe image, against the plain definition of the network.

        Compare with `probe.TOLERANCE`. The right answer is stored in the file, or for a .safetensors computed now.
        """
        return output_error(self._run(probe_image(self.input_shape))[0], self._expected())

    def classify(self, images: Sequence[ImageInput], *, top: int = 5) -> list[Prediction]:
        """Decodes, prepares and classifies images one at a time, ranking `top` labels.

        Raises ImageError for an image that cannot be decoded.
        """
        if isinstance(images, str | bytes | Path | np.ndarray | Image):
            raise DataError("classify takes a list of images; for one image, write classify([image])")
        return [self.classify_prepared(self.preprocessing.prepare(image).pixels, top=top) for image in images]

    def classify_prepared(self, image: np.ndarray, *, top: int = 5) -> Prediction:
        """Classifies one image already at the network's size: uint8 (H, W, C)."""
        return self.task.answer({LOGITS: self.logits(image[None])[0]}, top=top)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.input_shape))
        return escaped(f"<Net {self.name}: {len(self.labels)} classes, input {size}, {self.engine}, {self.path}>")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path of the file, which each process then opens once."""
        return _unpickled, (self._opened.resolve(), self.engine, self.threads, self.path, self.preprocessing)


def open(path: str | Path, *, engine: str | None = None, threads: int | None = None) -> Net:
    """Opens a .safetensors, .onnx or compiled model file. The default for `threads` is one per core.

    The default `engine` is onnxruntime; a compiled file only runs in the engine compiled. A compiled file is a program
    and runs code when it is opened.

    Raises FileError if the file is missing, damaged or not written by smallcnn, and SmallcnnError for an engine that
    does not exist or does not run such a file.
    """
    path = located(path)
    if engine is not None:
        engines.check_engine(engine)
    if threads is not None and threads < 1:
        raise SmallcnnError(f"threads must be at least 1, not {threads}")
    if threads is not None and threads > MOST_THREADS:
        raise SmallcnnError(
            f"threads must be at most {MOST_THREADS}, not {threads}; this machine has {os.cpu_count()} cores"
        )
    check_kind(path, engines.SUFFIXES)
    engine = engines.choose(path, engine)
    if path.suffix.lower() == ".safetensors":
        return _open_artifact(path, engine, threads)
    if path.suffix.lower() in COMPILED:
        file = compiled.load(path, threads)
        return _converted(path, engine, threads, file.metadata, file.run)
    if "smallcnn.format" not in outline.metadata(path):  # checked before an engine reads the file
        made = path.with_suffix(".safetensors")
        raise FileError(f"{path}: not written by smallcnn; import it with: smallcnn import {path} --out {made}")
    run, entries, shape = engines.open_onnx(Loadable(path), engine, threads)
    net = _converted(path, engine, threads, entries, run)
    if shape[1:] != net.input_shape:
        said, takes = ("x".join(map(str, sides)) for sides in (net.input_shape, shape[1:]))
        raise FileError(f"{path}: prepares images to {said}, but takes {takes}; it was changed after smallcnn wrote it")
    return net


def _unpickled(opened: Path, engine: str, threads: int | None, path: Path, preprocessing: Preprocessing) -> Net:
    try:
        stat = opened.stat()
    except OSError as error:
        raise FileError(f"{opened}: cannot be opened again ({error.strerror})") from error
    net = _opened_again(opened, engine, threads, (stat.st_mtime_ns, stat.st_size))
    return replace(net, path=path, preprocessing=preprocessing)


@lru_cache(maxsize=4)
def _opened_again(path: Path, engine: str, threads: int | None, stamp: tuple[int, int]) -> Net:  # noqa: ARG001
    """Shares one Net among all unpickled in a process while the file is unchanged; a pool unpickles one per task."""
    return open(path, engine=engine, threads=threads)


def _open_artifact(path: Path, engine: str, threads: int | None) -> Net:
    from smallcnn.cost.profile import profile
    from smallcnn.model import store

    artifact = store.load(path)
    store.check_finite(artifact, path)
    model = Loadable(path, artifact)
    return Net(
        path=path,
        engine=engine,
        threads=threads,
        name=artifact.graph.name,
        task=classification(artifact.task, str(path)),
        preprocessing=artifact.preprocessing,
        facts=artifact.facts,
        mult_adds=profile(artifact.graph).mult_adds,
        outputs_probabilities=False,
        _opened=path,
        _expected=cache(lambda: _only(probe_answer(artifact.graph, artifact.weights, artifact.preprocessing))),
        _run=engines.start(model, engine, threads),
        _check=_once(path, engine, lambda image: engines.plain_answer(model, image)),
    )


def _converted(path: Path, engine: str, threads: int | None, entries: dict[str, str], run: Run) -> Net:
    try:
        said = metadata.parse(entries)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    return Net(
        path=path,
        engine=engine,
        threads=threads,
        name=said.name,
        task=classification(said.task, str(path)),
        preprocessing=said.preprocessing,
        facts=said.facts,
        mult_adds=said.mult_adds,
        outputs_probabilities=said.outputs_probabilities,
        _opened=path,
        _expected=lambda: _only(said.answer),
        _run=run,
        _check=_once(path, engine, lambda image: _only(said.answer)),
    )


def _only(answer: Mapping[str, np.ndarray]) -> np.ndarray:
    (value,) = answer.values()
    return value


def _once(
    path: Path, engine: str, expected: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Run, tuple[int, int, int]], None]:
    """A check of an engine that runs on the first call and then frees its data."""
    waiting = [expected]

    def check(run: Run, shape: tuple[int, int, int]) -> None:
        for answer in tuple(waiting):
            image = probe_image(shape)
            wanted = answer(image)
            error = output_error(run(image)[0], wanted)
            if np.isfinite(wanted).all() and not agrees(
                error
            ):  # otherwise `logits` refuses each answer that is not finite
                raise AnswerError(
                    f"{path}: {engine} gives a wrong answer on the probe image, off by {error:.1e} of its largest "
                    "output; the file was changed or the engine is faulty: try another --engine"
                )
        waiting.clear()

    return check
