"""What the steps of a compression share: images, training, judging, and a folder from which a run resumes.

Each result of a step is kept in the folder as a model file, NUMBER-NAME.safetensors, with its row in rows.json. A
command that is repeated after an interruption finds them and continues after the last one; an interrupted training run
resumes where it stopped. Other tries with the same images have folders of their own in it, see `branch`.
"""

import copy
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn import runtime
from smallcnn.compress import clock
from smallcnn.compress.clock import Clock
from smallcnn.compress.latency import int8_milliseconds, milliseconds
from smallcnn.cost.profile import profile
from smallcnn.data import holdout
from smallcnn.data.loader import all_prepared
from smallcnn.data.sources import Data, Source
from smallcnn.data.split import Split
from smallcnn.errors import CompileError, DataError, GraphError
from smallcnn.evaluate import evaluate
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.facts import TrainedOn
from smallcnn.model.model import Model
from smallcnn.system import lock
from smallcnn.system.files import make_folder, write
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.metrics import title
from smallcnn.train.recipe import BatchNorm, Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the report. `score` is the task's, from 0 to 1; `bytes` are those of the packed model file, of the
    original those of the file that was given.

    `zipped_bytes` are those of the file that is not packed, deflated as zip does. `milliseconds` are those that the
    compiler expects of one thread, `int8_milliseconds` the same once the network is quantized; None if it does not
    support the network. `measured_milliseconds` are those of the compiled network, None if it was not timed. `integer`
    says whether the network computes with bytes.
    """

    name: str
    score: float
    bytes: int
    mult_adds: int
    parameters: int
    milliseconds: float | None
    zipped_bytes: int
    int8_milliseconds: float | None
    measured_milliseconds: float | None = None
    integer: bool = False


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a run uses. `folder` keeps its results; `threads` compute, `workers` decode."""

    folder: Path
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    say: Say = lambda line: None


class Workshop:
    """The images of a run and what can be done with them. `asked` is what the run was asked for, in JSON.

    `size` are the bytes of the file that the model is from, by default those of a file that is not packed.
    Raises DataError if the images have other labels than the network and a step `trains`, or the folder holds another
    run.
    """

    def __init__(
        self, model: Model, data: Data, means: Means, *, root: str | Path | None, asked: Any, trains: bool = True,
        size: int | None = None,
    ) -> None:  # fmt: skip
        self.original, self.means = model, means
        self.rows: list[Row] = []
        self._structures: list[str] = []  # of the networks of the rows
        self.source, self.part = labelled(model, data, root, same=trains)
        make_folder(means.folder)
        self._check_same({"weights": _digest(model), "images": self.source.fingerprint, "seed": means.seed} | asked)
        self._teacher = means.folder / _ORIGINAL
        if not self._teacher.is_file():
            store.save(model, self._teacher)
        self._size = size or self._teacher.stat().st_size
        self.clock = Clock(model, means.folder)
        self._times: dict[str, tuple[float | None, float | None]] = {}
        self._kept = self._read_rows()
        self.judged = 0
        self.score = ""
        self._keep("original", self._teacher, model)

    def branch(self, name: str, *, part: str | None = None, say: Say | None = None) -> "Workshop":
        """A workshop for another try with the same images, whose results are in a folder of that name in this one's.

        Its rows begin with those there are, or if another split than before is to judge, with the original's.
        """
        made = copy.copy(self)
        made.means = replace(self.means, folder=self.means.folder / name, say=say or self.means.say)
        make_folder(made.means.folder)
        made._kept = made._read_rows()
        made.rows, made._structures = list(self.rows), list(self._structures)
        if part is not None and part != self.part:
            made.part, made.rows, made._structures = part, [], []
            made._keep("original", self._teacher, self.original)
        return made

    def report(self) -> tuple[Row, ...]:
        """The rows, with the times that were measured."""
        rows = zip(self.rows, self._structures, strict=True)
        return tuple(replace(row, measured_milliseconds=self.clock.known(key)) for row, key in rows)

    def once(self, name: str, make: Callable[[], Model]) -> Model:
        """The model that `make` gives, kept in the folder, with a row in the report; made only if it is not there."""
        file = self.means.folder / f"{len(self.rows)}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.safetensors"
        if file.is_file():
            model = store.load(file)
        else:
            model = make()
            store.save(model, file, packed=True)
        self._keep(name, file, model)
        return model

    def fine_tuned(
        self, model: Model, epochs: int, *, keep_values: bool = False, batch_norm: BatchNorm = "batch",
        sparsity: float = 0.0, lr: float | None = None,
    ) -> Model:  # fmt: skip
        """The model after `epochs` of the ordinary training loop, a classifier with the original as its teacher.

        With `keep_values`, zeros stay zero, equal weights of a layer equal, and hashed ones hashed; `sparsity` is that
        of the recipe. Without `lr`, the learning rate is that of a trained network.
        Raises KeyboardInterrupt after Ctrl-C and a checkpoint.
        """
        from smallcnn.train.run import train
        from smallcnn.train.teacher import teaches

        folder = self.means.folder / f"{len(self.rows)}-training"
        result = train(
            model, self.source, folder, teacher=self._teacher if teaches(self.original) else None, resume=True,
            device=self.means.device, threads=self.means.threads, workers=self.means.workers, epochs=epochs,
            head_epochs=0, layer_decay=1.0, seed=self.means.seed, keep_values=keep_values, sparsity=sparsity, lr=lr,
            batch_norm=batch_norm,
        )  # fmt: skip
        if not result.finished:
            raise KeyboardInterrupt
        return store.load(result.last if sparsity else result.best)  # the best epoch may be one of little sparsity

    def calibration(self) -> np.ndarray:
        """Some images of the train split as network input, uint8 (N, H, W, C)."""
        return calibration(self.source.splits["train"], self.original.preprocessing, self.means.workers)

    def judge(self, model: Model) -> float:
        """The score of a model on the split that judges, in ONNX Runtime."""
        net = runtime.of(model, threads=self.means.threads)
        found = evaluate(net, self.source, part=self.part, workers=self.means.workers)
        self.score, self.judged = next(iter(found.scores)), found.images
        return found.scores[self.score]

    def _keep(self, name: str, file: Path, model: Model) -> None:
        """Adds the row of a model, judged now unless it was before."""
        stored, key = self._kept.get(file.name), clock.structure(model.graph)
        if stored is None or stored["row"]["name"] != name:
            if key not in self._times:
                self._times[key] = _expected(model.graph)
            cost, (expected, as_int8) = profile(model.graph), self._times[key]
            taken = self._size if file == self._teacher else file.stat().st_size
            row = Row(
                name, self.judge(model), taken, cost.mult_adds, cost.parameters, expected,
                len(zlib.compress(store.content(model))), as_int8, integer=model.graph.integer,
            )  # fmt: skip
            self._kept[file.name] = {"row": asdict(row), "score": self.score, "judged": self.judged}
            write(self.means.folder / _ROWS, json.dumps(self._kept, indent=1).encode())
        else:
            row, self.score, self.judged = Row(**stored["row"]), stored["score"], stored["judged"]
        self._structures.append(key)
        self.rows.append(row)
        self.means.say(
            f"{name}: {title(self.score)} {row.score:.2%}, {row.mult_adds / 1e6:,.2f} M Mult-Adds, "
            f"{row.parameters / 1e6:,.3f} M parameters"
        )

    def _check_same(self, asked: dict[str, Any]) -> None:
        """Raises DataError if the folder holds results of another run, or other files; else notes what this one is."""
        folder, file = self.means.folder, self.means.folder / _ASKED
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        others = [path for path in folder.iterdir() if path.name != lock.RUN]
        if others and not before:
            raise DataError(f"{folder}: not empty, and no results of a compression; name another folder")
        text = json.dumps(asked, indent=1, sort_keys=True)
        if before and before != text:
            if any(path.name not in _BEFORE for path in others):
                raise DataError(
                    f"{folder} holds results of another run ({_differing(before, asked)} differ); delete it, or name "
                    "another folder"
                )
            for path in others:  # a run that was refused before its first result
                path.unlink()
        write(file, text.encode())

    def _read_rows(self) -> dict[str, Any]:
        """Results of steps that were judged before; without those that are damaged, or of another version."""
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            stored = json.loads((self.means.folder / _ROWS).read_text(encoding="utf-8"))
            return {key: one for key, one in stored.items() if one.keys() == _KEPT and one["row"].keys() == _COLUMNS}
        return {}


_CALIBRATION = 128
"""Images that weights are replaced for."""


def calibration(split: Split, preprocessing: Preprocessing, workers: int | None) -> np.ndarray:
    """Some images of a split as network input, uint8 (N, H, W, C)."""
    some = split.subset(np.linspace(0, len(split) - 1, min(len(split), _CALIBRATION)).round().astype(int).tolist())
    return all_prepared(some, preprocessing, workers=workers)


def labelled(model: Model, data: Data, root: str | Path | None, *, same: bool = True) -> tuple[Source, str]:
    """The images, cut as when the model was trained, and the split that judges: test, or val if there is none.

    Raises DataError if the images have other labels than the network, and must have the `same`.
    """
    from smallcnn.train.start import opened

    trained_on, usual = model.facts.data or TrainedOn(), Recipe()
    recipe = replace(
        usual,
        seed=usual.seed if trained_on.seed is None else trained_on.seed,
        val_fraction=trained_on.val_fraction or usual.val_fraction,
    )
    columns = model.task if isinstance(model.task, Attributes) else None
    source = opened(data, recipe, root, columns=columns, cut=trained_on.cut or "")
    if source.val_is_cut and not source.cut:  # the same images judge, whatever seed trains
        train = source.listing.splits["train"]
        held_out = holdout.by_hash(train.targets.strata(), train.names, recipe.seed, recipe.val_fraction)
        source = replace(source, cut=holdout.as_text(held_out, len(train), source.fingerprint))
    if same and (model.task.kind != source.task.kind or sorted(model.labels) != sorted(source.classes)):
        raise DataError(
            f"{source.listing.place}: its labels must be those of the network, which is for "
            f"{model.task.kind} of {', '.join(model.labels[:5])}{', ...' if len(model.labels) > 5 else ''}"
        )
    return source, "test" if "test" in source.splits else "val"


_ROWS, _ASKED, _ORIGINAL = "rows.json", "asked.json", "original.safetensors"
_BEFORE = (_ROWS, _ASKED, _ORIGINAL, clock.FILE)
"""Files that there are before the first result."""
_COLUMNS, _KEPT = Row.__dataclass_fields__.keys(), {"row", "score", "judged"}


def _expected(graph: Graph) -> tuple[float | None, float | None]:
    """The ms that the compiler expects of a network, and of its quantized form; None if it does not support it."""
    try:
        whole = milliseconds(graph)
        return whole, whole if graph.integer else int8_milliseconds(graph)
    except (CompileError, GraphError):
        return None, None


def _digest(model: Model) -> str:
    """Identifies a network and its weights."""
    found = hashlib.sha256(model.graph.to_json().encode())
    for value in model.weights.values():
        found.update(np.ascontiguousarray(value).data)
    return found.hexdigest()


def _differing(before: str, asked: dict[str, Any]) -> str:
    """The names of the entries that differ."""
    try:
        stored = json.loads(before)
    except ValueError:
        return "all entries"
    return ", ".join(sorted(key for key in stored.keys() | asked.keys() if stored.get(key) != asked.get(key)))
