"""Facts: where a model's weights come from, as its file stores them in JSON.

Other versions may have stored more, or something else under these names. What is not understood is kept as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

_COUNT = "_images"


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The data set of a training run. `name` is that of its file or folder, `fingerprint` identifies its images.

    `seed` and `val_fraction` cut the validation split, or `cut`, if groups did (see `data.sources.Source`). `images`
    are the sizes of the splits by name, `skipped` those that could not be decoded. `left_out` and `near_duplicates` are
    counts of files that are not used, and of validation images that look like training images.
    """

    name: str
    fingerprint: str
    seed: int
    val_fraction: float
    skipped: int | None = None
    left_out: dict[str, Any] | None = None
    cut: str | None = None
    near_duplicates: dict[str, Any] | None = None
    images: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A flat object: the sizes of splits are train_images, val_images."""
        return _stated(self, without={"images"}) | {f"{name}{_COUNT}": count for name, count in self.images.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TrainedOn | None":
        """The inverse of `to_json`; None if a field is unknown or of another type."""
        known = {key: value for key, value in record.items() if not key.endswith(_COUNT)}
        images = {key.removesuffix(_COUNT): value for key, value in record.items() if key.endswith(_COUNT)}
        try:
            made = cls(**known, images=images)
        except TypeError:
            return None
        right = _fit(made) and all(isinstance(count, int) for count in images.values())
        return made if right and made.to_json() == record else None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about a model. A field is None if its file does not state it.

    `trained` is False for random weights. `start`, `teacher`, `recipe`, `data`, `epoch`, `averaged`, `device`,
    `bfloat16` and `versions` describe the training run, `scores` the validation scores of these weights by name.
    `imported`, `published` and `onnx` describe weights from other programs. `other` is everything else.
    """

    model: str | None = None
    trained: bool | None = None
    start: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    data: TrainedOn | None = None
    epoch: int | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    averaged: bool | None = None
    device: str | None = None
    bfloat16: bool | None = None
    versions: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    published: dict[str, Any] | None = None
    onnx: dict[str, Any] | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One object without the fields that are None; a score is val_ and its name: val_top1."""
        data = {"data": self.data.to_json()} if self.data else {}
        scores = {f"val_{name}": score for name, score in self.scores.items()}
        return _stated(self, without={"data", "scores", "other"}) | data | scores | dict(self.other)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Facts":
        """The inverse of `to_json`; any object is accepted."""
        known: dict[str, Any] = {}
        scores, other = {}, {}
        for name, value in record.items():
            if name == "data" and isinstance(value, dict) and (data := TrainedOn.from_json(value)):
                known["data"] = data
            elif name in _PLAIN and value is not None and isinstance(value, _PLAIN[name]):
                known[name] = value
            elif name.startswith("val_") and isinstance(value, int | float | None):
                scores[name.removeprefix("val_")] = value
            else:
                other[name] = value
        return cls(**known, scores=scores, other=other)


def _stated(record: TrainedOn | Facts, without: set[str]) -> dict[str, Any]:
    """The fields that are not None."""
    values = {entry.name: getattr(record, entry.name) for entry in fields(record) if entry.name not in without}
    return {name: value for name, value in values.items() if value is not None}


def _kinds(record: type) -> dict[str, tuple[type, ...]]:
    """The classes that the values of a record's fields may have, by field."""
    found = {}
    for name, hint in get_type_hints(record).items():
        choices = [getattr(kind, "__origin__", kind) for kind in get_args(hint)] or [hint]
        origin = getattr(hint, "__origin__", None)
        kinds = (origin,) if origin else tuple(choices)
        found[name] = (*kinds, int) if float in kinds else kinds
    return found


def _fit(made: TrainedOn) -> bool:
    return all(isinstance(getattr(made, name), kinds) for name, kinds in _TRAINED_ON.items())


_TRAINED_ON = _kinds(TrainedOn)
_PLAIN = {name: kinds for name, kinds in _kinds(Facts).items() if name not in ("data", "scores", "other")}
