"""Runs models: opens a model file, or takes a model in memory. Needs numpy and an engine, and torch only as the engine.

net = smallcnn.open("model.onnx", threads=1)
net.run(batch)                                   uint8 (N, H, W, C) -> {output: (N, ...)}
net.logits(batch)                                the same for a network with one output: float32 (N, classes)
net.answers(paths)                               the task's answer for each image, or why it cannot be decoded
net.classify(["a.jpg", pillow_image, array])     -> [Prediction(label, probability, ranked), ...]
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from smallcnn.data.loader import in_threads
from smallcnn.engines import engine as engines
from smallcnn.engines.proof import Proof, check_promises
from smallcnn.engines.session import Loadable, Session
from smallcnn.errors import AnswerError, DataError, FileError, GraphError, ImageError, SmallcnnError
from smallcnn.image.decode import ImageInput
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen
from smallcnn.ir.checks import is_whole, shown
from smallcnn.ir.types import LOGITS, Tensor
from smallcnn.model import metadata
from smallcnn.model.facts import Facts
from smallcnn.model.kinds import KINDS, check_kind, read
from smallcnn.model.probe import probe_answer
from smallcnn.model.shipped import located
from smallcnn.onnx.read import outline
from smallcnn.system.escape import escaped
from smallcnn.tasks.classification import Classification, Prediction, classification
from smallcnn.tasks.detection import SCORES, Detection
from smallcnn.tasks.ending import Ending, logits_of
from smallcnn.tasks.task import Outputs, Task

if TYPE_CHECKING:
    from smallcnn.model.model import Model
    from smallcnn.transform.limits import Limits

BATCH = 16
"""Images run together by default."""


@dataclass(frozen=True, repr=False)
class Net:
    """A network in an engine; see `open` and `of`.

    `path` is the file; None if there is none. `outputs` are those of one image, by name.
    """

    path: Path | None
    engine: str
    threads: int | None
    name: str
    task: Task
    preprocessing: Preprocessing
    facts: Facts
    mult_adds: int
    outputs: dict[str, Tensor]
    _probabilities: bool
    _source: "Path | Model"
    _session: Session
    _proof: Proof
    _limits: "Limits | None" = None

    @property
    def where(self) -> str:
        """The file, or without one the network's name, for messages."""
        return str(self.path or self.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

    @property
    def ending(self) -> Ending:
        """A classifier's function from logits to probabilities. Raises GraphError for another task."""
        return classification(self.task, "an ending").ending

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by name, (N, ...) each: a prepared uint8 batch (N, H, W, C), before a classifier's ending.

        A file that ends in softmax gives log-probabilities. Raises DataError if the batch has another shape or type,
        AnswerError if an answer is not finite or the engine fails the check on the probe image before its first run.
        """
        answers = self._run(batch)
        if not _finite(answers):
            raise self._not_finite()
        return answers

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """The only output of a network that has one, see `run`: float32 (N, classes) of a classifier.

        Raises DataError if there are several outputs.
        """
        if len(self.outputs) > 1:
            raise DataError(f"{self.where}: has the outputs {', '.join(self.outputs)}; `run` gives them by name")
        (answer,) = self.run(batch).values()
        return answer

    def verify(self) -> float:
        """The largest relative error of any output on the probe image, against the plain definition of the network.

        Compare with `tolerance`. The right answer is stored in the file, or for a model computed now.
        """
        return self._proof.error()

    @property
    def integer(self) -> bool:
        """Whether the network computes with whole numbers."""
        return self._proof.integer

    @property
    def tolerance(self) -> float:
        """The largest error of `verify` that rounding explains."""
        return self._proof.allowed

    def answers(
        self, images: Sequence[ImageInput], *, batch: int = BATCH, workers: int | None = None, top: int = 5
    ) -> Iterator[Any]:
        """What the task says about each image, in order: its answer, or the ImageError or AnswerError in its place.

        `workers` threads decode ahead of the engine, which runs `batch` images together; None means one per core, at
        most eight. A classifier ranks `top` labels.
        """
        _check_list("answers", images)
        for name, value in (("batch", batch), ("workers", workers or 1), ("top", top)):
            if not is_whole(value):
                raise DataError(f"{name} must be a whole number of at least 1, not {shown(value)}")
        return self._answers(images, batch, workers, top)

    def _answers(self, images: Sequence[ImageInput], batch: int, workers: int | None, top: int) -> Iterator[Any]:
        together = in_threads(
            lambda index: self.preprocessing.prepare(images[index]), range(len(images)),
            batch_size=batch, workers=workers,
        )  # fmt: skip
        for _, results in together:
            good = [one for one in results if not isinstance(one, ImageError)]
            outputs = self._run(np.stack([one.pixels for one in good])) if good else {}
            places = iter(range(len(good)))
            for one in results:
                yield one if isinstance(one, ImageError) else self._answer(outputs, next(places), one.seen, top)

    def answer(self, image: ImageInput, *, top: int = 5) -> Any:
        """What the task says about one image. Raises ImageError if it cannot be decoded, AnswerError as `run`."""
        prepared = self.preprocessing.prepare(image)
        return self._answer(self.run(prepared.pixels[None]), 0, prepared.seen, top)

    def classify(self, images: Sequence[ImageInput], *, top: int = 5) -> list[Prediction]:
        """Decodes, prepares and classifies images one at a time, ranking `top` labels.

        Raises ImageError for an image that cannot be decoded, GraphError if the task is not classification.
        """
        _check_list("classify", images)
        return [self.classify_prepared(self.preprocessing.prepare(image).pixels, top=top) for image in images]

    def classify_prepared(self, image: np.ndarray, *, top: int = 5) -> Prediction:
        """Classifies one image already at the network's size: uint8 (H, W, C)."""
        task = classification(self.task, "classify")
        return task.answer({LOGITS: self.logits(image[None])[0]}, top=top)

    def _answer(self, outputs: Outputs, place: int, seen: Seen, top: int) -> Any:
        """What the task says about one image of a batch, or the AnswerError for what is not finite."""
        own = {name: value[place] for name, value in outputs.items()}
        if not _finite(own):
            return self._not_finite()
        if isinstance(self.task, Classification):
            return self.task.answer(own, seen, top=top)
        return self.task.answer(own, seen)

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """`run` without the check for finite answers."""
        if batch.dtype != np.uint8 or batch.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"the network takes uint8 (N, {wanted}), not {batch.dtype} {batch.shape}")
        self._proof.check()
        answers = self._session.run(batch)
        if not self._probabilities:
            return answers
        (answer,) = answers.values()
        return {LOGITS: logits_of(answer, self.ending)}

    def _not_finite(self) -> AnswerError:
        return AnswerError(f"{self.where}: its answer is not a finite number; the model is broken")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.input_shape))
        what = f"{len(self.labels)} classes" if isinstance(self.task, Classification) else self.task.kind
        file = f", {self.path}" if self.path else ""
        return escaped(f"<Net {self.name}: {what}, input {size}, {self.engine}{file}>")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path of the file, which each process then opens once, or the model if there is no file."""
        source = self._source.resolve() if isinstance(self._source, Path) else self._source
        return _unpickled, (source, self.engine, self.threads, self.path, self.preprocessing, self._limits)


def open(
    path: str | Path, *, engine: str | None = None, threads: int | None = None, limits: "Limits | None" = None
) -> Net:
    """Opens a .safetensors, .onnx or compiled model file. The default for `threads` is one per core.

    The default `engine` is onnxruntime; a compiled file only runs in the engine compiled. A compiled file is a program
    and runs code when it is opened. `limits` change what a detector keeps; only a .safetensors file can find more
    objects than its outputs have rows.

    Raises FileError if the file is missing, damaged or not written by smallcnn, or cannot have such limits,
    SmallcnnError for an engine that does not exist or does not run such a file, and GraphError for limits of a network
    that is no detector.
    """
    path = located(path)
    engines.check_settings(engine, threads)
    kind = KINDS[check_kind(path)]
    engine = engines.choose(path, engine)
    if kind.trainable:
        model = read(path)
        return _of(model, path, engine, threads) if not limits else _limited(model, limits, path, engine, threads)
    if kind.suffix == ".onnx" and "smallcnn.format" not in outline.metadata(path):  # before an engine reads the file
        made = path.with_suffix(".safetensors")
        raise FileError(f"{path}: not written by smallcnn; import it with: smallcnn import {path} --out {made}")
    session = engines.start(Loadable(path, str(path)), engine, threads)
    try:
        said = metadata.parse(session.metadata)
        check_promises(said, session)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    running = session if not limits else _limited_file(path, engine, threads, limits, said)
    rounding = _rounding(Loadable(path, str(path)), said.task) if kind.suffix == ".onnx" else None
    proof = Proof(
        session, str(path), engine, lambda: said.answer, lambda: said.answer, integer=said.integer, rounding=rounding
    )
    return Net(
        path=path,
        engine=engine,
        threads=threads,
        name=said.name,
        task=said.task,
        preprocessing=said.preprocessing,
        facts=said.facts,
        mult_adds=said.mult_adds,
        outputs=dict(zip([LOGITS], said.results.values(), strict=True)) if said.outputs_probabilities else said.results,
        _probabilities=said.outputs_probabilities,
        _source=path,
        _session=running,
        _proof=proof,
        _limits=limits,
    )


def of(model: "Model", *, engine: str | None = None, threads: int | None = None) -> Net:
    """A model in memory, ready to run, as `open` makes one of a file."""
    engines.check_settings(engine, threads)
    fits = KINDS[".safetensors"].engines
    if engine is not None and engine not in fits:
        raise SmallcnnError(f"{model.graph.name}: a model in memory runs in {' or '.join(fits)}, not in {engine}")
    return _of(model, None, engine or fits[0], threads)


def _of(model: "Model", path: Path | None, engine: str, threads: int | None) -> Net:
    from smallcnn.cost.profile import profile

    where = str(path or model.graph.name)
    loadable = Loadable(model, where)
    session = engines.start(loadable, engine, threads)
    proof = Proof(
        session, where, engine,
        exact=cache(lambda: probe_answer(model.graph, model.weights, model.preprocessing)),
        first=lambda: engines.plain_answer(loadable),
        integer=model.graph.integer,
        rounding=_rounding(Loadable(model, where), model.task),
    )  # fmt: skip
    return Net(
        path=path,
        engine=engine,
        threads=threads,
        name=model.graph.name,
        task=model.task,
        preprocessing=model.preprocessing,
        facts=model.facts,
        mult_adds=profile(model.graph).mult_adds,
        outputs=model.graph.results,
        _probabilities=False,
        _source=path or model,
        _session=session,
        _proof=proof,
    )


def _rounding(loadable: Loadable, task: Task) -> Callable[[], float] | None:
    """For `Proof`; objects of a detector are compared in another way, which knows about rounding."""
    return None if isinstance(task, Detection) else lambda: engines.rounding(loadable)


def _limited(model: "Model", limits: "Limits", path: Path, engine: str, threads: int | None) -> Net:
    """The model of a file with other limits than the file has."""
    from smallcnn.transform.limits import limited

    model = replace(model, graph=limited(model.graph, limits))
    return replace(_of(model, path, engine, threads), _source=model)


def _limited_file(
    path: Path, engine: str, threads: int | None, limits: "Limits", said: metadata.Description
) -> Session:
    """An engine with the file of a detector that keeps what `limits` say; the probe proves it without them."""
    if not isinstance(said.task, Detection):
        raise GraphError(f"{said.name} is not a detector: it has no {limits}")
    (rows,) = said.results[SCORES].shape
    if limits.most and limits.most > rows:
        raise FileError(f"{path}: finds at most {rows} objects; a higher most is set when it is exported or compiled")
    return engines.start(Loadable(path, str(path), limits), engine, threads)


def _finite(outputs: Outputs) -> bool:
    return all(np.isfinite(value).all() for value in outputs.values())


def _check_list(method: str, images: object) -> None:
    if isinstance(images, str | bytes | Path | np.ndarray | Image):
        raise DataError(f"{method} takes a list of images; for one image, write {method}([image])")
    if isinstance(images, Mapping) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise DataError(f"{method} takes a list of images, not a {type(images).__name__}; write list(...) around it")


def _unpickled(
    source: "Path | Model",
    engine: str,
    threads: int | None,
    path: Path | None,
    preprocessing: Preprocessing,
    limits: "Limits | None",
) -> Net:
    if not isinstance(source, Path):
        return replace(of(source, engine=engine, threads=threads), path=path, preprocessing=preprocessing)
    try:
        stat = source.stat()
    except OSError as error:
        raise FileError(f"{source}: cannot be opened again ({error.strerror})") from error
    net = _opened_again(source, engine, threads, limits, (stat.st_mtime_ns, stat.st_size))
    return replace(net, path=path, preprocessing=preprocessing)


@lru_cache(maxsize=4)
def _opened_again(
    path: Path,
    engine: str,
    threads: int | None,
    limits: "Limits | None",
    stamp: tuple[int, int],  # noqa: ARG001
) -> Net:
    """Shares one Net among all unpickled in a process while the file is unchanged; a pool unpickles one per task."""
    return open(path, engine=engine, threads=threads, limits=limits)
