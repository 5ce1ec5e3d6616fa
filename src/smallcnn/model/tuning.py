"""Tuning: which kernels of a compiled file have forms that were chosen by timing, as the file states it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from smallcnn.errors import FileError
from smallcnn.ir import checks

SECONDS = 60.0
"""Default time budget."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Kernels chosen by timing on `processor`, on `threads` threads; `model` names the machine model that ordered the
    forms.

    `kernels` names the steps whose kernels were timed in several forms, out of `of` steps whose kernels have several.
    `forms` of their forms were timed, out of `space`. `seconds` is the time budget of the compilation, None if it only
    used earlier measurements; `gain` is by how much the network is faster than the plan without them (0.07: 7 %).
    """

    kernels: tuple[str, ...]
    of: int
    forms: int
    space: int
    gain: float
    threads: int
    processor: str
    model: str
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """The inverse of `to_json`; entries of later versions are ignored. Raises FileError if one is damaged."""
        try:
            known = {name: record[name] for name in cls.__dataclass_fields__}
        except (KeyError, TypeError):
            raise FileError(f"its tuning is {checks.shown(record)}") from None
        counts = [known[name] for name in ("of", "forms", "space", "threads")]
        good = (
            isinstance(known["kernels"], list)
            and all(isinstance(name, str) for name in known["kernels"])
            and all(type(count) is int and count >= 0 for count in counts)
            and all(isinstance(known[name], str) for name in ("processor", "model"))
            and isinstance(known["gain"], int | float)
            and isinstance(known["seconds"], int | float | None)
        )
        if not good or not isinstance(record, Mapping):
            raise FileError(f"its tuning is {checks.shown(record)}")
        return cls(**known | {"kernels": tuple(known["kernels"])})
