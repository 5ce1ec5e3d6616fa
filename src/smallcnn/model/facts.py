"""Facts: where a model's weights come from, as its file stores them in JSON.

Other versions may have stored more, or something else under these names. What is not understood is kept as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Self, get_args, get_origin, get_type_hints

_COUNT, _SCORE = "_images", "val_"


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The data set of a training run. `name` is that of its file or folder, `fingerprint` identifies its images.

    `seed` and `val_fraction` cut the validation split, or `cut`, if groups did (see `data.sources.Source`). `images`
    are the sizes of the splits by name, `skipped` those that could not be decoded. `left_out` and `near_duplicates` are
    counts of files that are not used, and of validation images that look like training images. `other` is everything
    else.
    """

    name: str | None = None
    fingerprint: str | None = None
    seed: int | None = None
    val_fraction: float | None = None
    skipped: int | None = None
    left_out: dict[str, Any] | None = None
    cut: str | None = None
    near_duplicates: dict[str, Any] | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One flat object without the fields that are None; the sizes of splits are train_images, val_images."""
        images = {f"{name}{_COUNT}": count for name, count in self.images.items()}
        return {**self.other, **_stated(self), **images}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; any object is accepted."""
        known, rest = _known(cls, record)
        counted = [name for name, value in rest.items() if name.endswith(_COUNT) and isinstance(value, int)]
        images = {name.removesuffix(_COUNT): rest.pop(name) for name in counted}
        return cls(**known, images=images, other=rest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts(Mapping[str, Any]):
    """Facts about a model. A field is None if its file does not state it. As a mapping it is the object in the file.

    `trained` is False for random weights. `start`, `teacher`, `recipe`, `data`, `epoch`, `averaged`, `device`,
    `bfloat16` and `versions` describe the training run, `scores` the validation scores of these weights by name.
    `imported`, `published`, `onnx`, `tflite` and `keras` describe weights from other programs, `reestimated`,
    `calibrated` and `resized_from` changes after training. `other` is everything else.
    """

    model: str | None = None
    trained: bool | None = None
    start: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    data: TrainedOn | None = None
    epoch: int | None = None
    averaged: bool | None = None
    device: str | None = None
    bfloat16: bool | None = None
    versions: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    published: dict[str, Any] | None = None
    onnx: dict[str, Any] | None = None
    tflite: dict[str, Any] | None = None
    keras: dict[str, Any] | None = None
    reestimated: dict[str, Any] | None = None
    calibrated: dict[str, Any] | None = None
    resized_from: list[int] | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One object without the fields that are None; a score is val_ and its name: val_top1."""
        data = {"data": self.data.to_json()} if self.data else {}
        scores = {f"{_SCORE}{name}": score for name, score in self.scores.items()}
        return {**self.other, **_stated(self), **data, **scores}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; any object is accepted."""
        known, rest = _known(cls, record)
        if isinstance(rest.get("data"), dict):
            known["data"] = TrainedOn.from_json(rest.pop("data"))
        scored = [name for name, value in rest.items() if name.startswith(_SCORE) and isinstance(value, _NUMBER)]
        scores = {name.removeprefix(_SCORE): rest.pop(name) for name in scored}
        return cls(**known, scores=scores, other=rest)

    def __getitem__(self, name: str) -> Any:
        return self.to_json()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_json())

    def __len__(self) -> int:
        return len(self.to_json())


_NUMBER = (int, float, type(None))
_NESTED = ("data", "scores", "images", "other")


def _stated(record: TrainedOn | Facts) -> dict[str, Any]:
    """The plain fields that are not None."""
    values = {entry.name: getattr(record, entry.name) for entry in fields(record) if entry.name not in _NESTED}
    return {name: value for name, value in values.items() if value is not None}


def _known(record: type, stored: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries that are plain fields of a record's type, and the rest."""
    kinds = _kinds(record)
    known = {name: value for name, value in stored.items() if name in kinds and isinstance(value, kinds[name])}
    return known, {name: value for name, value in stored.items() if name not in known}


@cache
def _kinds(record: type) -> dict[str, tuple[type, ...]]:
    """The classes that a plain field's value may have, by field."""
    hints = {name: get_args(hint)[0] for name, hint in get_type_hints(record).items() if name not in _NESTED}
    return {name: (int, float) if hint is float else (get_origin(hint) or hint,) for name, hint in hints.items()}
