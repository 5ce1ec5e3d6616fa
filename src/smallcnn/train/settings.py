"""The settings of a run, as its checkpoint stores them, and what may not change when it is resumed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from smallcnn.errors import DataError, FileError, SmallcnnError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Grid
from smallcnn.tasks import kinds
from smallcnn.tasks.task import Task
from smallcnn.train.compute import Way
from smallcnn.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TeacherFile:
    """The teacher's file, and the SHA-256 of its contents."""

    file: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model that a run started from: its network, the SHA-256 of its weights, and whether the last layer is new.

    `about` are facts of that model: where it was imported from, and its validation score.
    """

    model: str
    weights: str
    new_last_layer: bool
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields in one flat object."""
        return {"model": self.model, "weights": self.weights, "new_last_layer": self.new_last_layer} | self.about

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Origin":
        """The inverse of `to_json`. Raises KeyError if a field is missing."""
        about = {key: value for key, value in record.items() if key not in ("model", "weights", "new_last_layer")}
        return cls(
            model=record["model"], weights=record["weights"], new_last_layer=record["new_last_layer"], about=about
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run was started with, and how it computes.

    `source` and `root` are the places of the images (see `open_source`), None if no file may name them. `images`
    identifies the images and their split, `cut` the validation images chosen with groups. `task` is None in runs of an
    older smallcnn, which trained classifiers only. `bfloat16` is None in those that did not store it. `grids` are those
    that quantization-aware training starts from, by the edges of the graph; None in other runs.
    """

    graph: Graph
    preprocessing: Preprocessing
    task: Task | None
    start: Origin | None
    teacher: TeacherFile | None
    source: str | None
    root: str | None
    images: str
    cut: str
    recipe: Recipe
    compute: Way = "auto"
    bfloat16: bool | None = None
    grids: Mapping[str, Grid] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; graph, preprocessing and task are JSON inside it, as in a model file."""
        record = {
            "model": self.graph.name,
            "graph": self.graph.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "task": self.task and kinds.to_json(self.task),
            "start": self.start and self.start.to_json(),
            "teacher": self.teacher and asdict(self.teacher),
            "source": self.source,
            "root": self.root,
            "pictures": self.images,
            "cut": self.cut,
            "recipe": asdict(self.recipe),
            "compute": self.compute,
        }
        grids = None if self.grids is None else {name: asdict(grid) for name, grid in self.grids.items()}
        newer = {"bfloat16": self.bfloat16, "grids": grids}
        return record | {name: value for name, value in newer.items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Settings":
        """The inverse of `to_json`. Raises FileError if a field is missing or of another kind."""
        for name, allowed in _KINDS.items():
            if name not in record:
                raise FileError(f"has no {name!r}; an older smallcnn wrote it, and this version cannot resume it")
            if not isinstance(record[name], allowed):
                raise FileError(f"not a checkpoint of a training run ({name!r} is {ascii(record[name])[:50]})")
        for name, allowed in _NEWER.items():
            if not isinstance(record.get(name), (*allowed, type(None))):
                raise FileError(f"not a checkpoint of a training run ({name!r} is {ascii(record[name])[:50]})")
        if record["compute"] not in get_args(Way):
            raise FileError(f"not a checkpoint of a training run ('compute' is {ascii(record['compute'])[:50]})")
        for name, wanted in {"start": {"new_last_layer"}, "teacher": {"file", "digest"}}.items():
            if record[name] is not None and not wanted <= record[name].keys():
                raise FileError(f"not a checkpoint of a training run ({name!r} lacks {', '.join(sorted(wanted))})")
        start, teacher, task = record["start"], record["teacher"], record.get("task")
        try:
            return cls(
                graph=Graph.from_json(record["graph"]),
                preprocessing=Preprocessing.from_json(record["preprocessing"]),
                task=task and kinds.from_json(task),
                start=start and Origin.from_json({"model": "", "weights": ""} | start),
                teacher=teacher and TeacherFile(file=teacher["file"], digest=teacher["digest"]),
                source=record["source"],
                root=record["root"],
                images=record["pictures"],
                cut=record.get("cut") or "",
                recipe=Recipe.from_dict(record["recipe"]),  # fills in fields that an older smallcnn lacked
                compute=record["compute"],
                bfloat16=record.get("bfloat16"),
                grids=_grids(record["grids"]) if record.get("grids") else None,
            )
        except SmallcnnError as error:
            raise FileError(f"not a checkpoint of a training run ({error})") from error


def _grids(record: Mapping[str, Any]) -> dict[str, Grid]:
    """The grids by edge. Raises FileError if one is none."""
    try:
        return {name: Grid(tuple(grid["scale"]), tuple(grid["zero"])) for name, grid in record.items()}
    except (TypeError, KeyError) as error:
        raise FileError(f"'grids' are {ascii(record)[:50]}") from error


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,), "graph": (str,), "preprocessing": (str,), "start": (dict, _NONE), "teacher": (dict, _NONE),
    "source": (str, _NONE), "root": (str, _NONE), "pictures": (str,), "recipe": (dict,), "compute": (str,),
}  # fmt: skip
_NEWER: dict[str, tuple[type, ...]] = {"cut": (str,), "bfloat16": (bool,), "task": (str,), "grids": (dict,)}
"""Fields that older runs lack."""


def check_same(folder: Path, old: Settings, new: Settings) -> None:
    """Raises DataError, naming what differs, unless a run started with `old` can be resumed with `new`.

    Images and teacher may have moved, but not changed.
    """
    if old.images != new.images:
        raise DataError(
            f"{folder}: cannot resume on these images; the run was started on others (images were added, removed, "
            "renamed or grouped differently, or it is another data set, or other columns). Resume on the same images, "
            "or train into another folder"
        )
    changed = []
    if old.graph.name != new.graph.name:
        changed.append(f"the network was {old.graph.name} and is now {new.graph.name}")
    if old.start != new.start:
        changed.append("the initial weights are different")
    if (old.teacher is None) != (new.teacher is None):
        changed.append(f"the run was started {'with' if old.teacher else 'without'} a teacher")
    elif old.teacher and new.teacher and old.teacher.digest != new.teacher.digest:
        changed.append("the teacher is another file")
    before, now = asdict(old.recipe), asdict(new.recipe)
    changed += [
        f"--{key.replace('_', '-')} was {before[key]} and is now {now[key]}" for key in now if before[key] != now[key]
    ]
    if old.graph != new.graph:
        changed.append("the network, its input size or its number of classes is different")
    if old.preprocessing != new.preprocessing:
        changed.append("the images are fitted or normalised differently")
    if old.task is not None and old.task != new.task:
        changed.append("the images are labelled for another task or with other labels")
    if changed:
        raise DataError(
            f"{folder}: cannot resume with other settings: {'; '.join(changed)}; "
            "keep the run's own settings, or train into another folder"
        )
