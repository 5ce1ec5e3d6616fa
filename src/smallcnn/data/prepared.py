"""What somebody says about the preparation of a network's images, where it differs from the usual.

    input = (pixel - mean) / std          pixels of 0..1, or of 0..255 where a mean above 1 says so, or a std above 16
    input = (pixel - mean) * scale        pixels of 0..255, as Caffe's files have it

Caffe's mean 104,117,123 is one of 0..255, and alone means that nothing is divided. Numbers are in the order of the
network's channels: blue first where `order` is "bgr".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from smallcnn.data.preprocessing import Order, Preprocessing
from smallcnn.errors import FileError

_MOST = 65536  # of a mean or standard deviation: more is no pixel's
_STD_OF_BYTES = 16
"""A standard deviation above this is one of 0..255, where the mean does not tell: those of 0..1 are about 0.25."""


@dataclass(frozen=True)
class Prepared:
    """What was said; None where nothing was. One number as `mean`, `std` or `scale` is for all channels.

    `resolution` is (height, width), or one number for both.
    """

    resolution: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float | None = None
    interpolation: str | None = None
    scale: tuple[float, ...] | None = None
    order: Order | None = None

    @property
    def plane(self) -> tuple[int, int] | None:
        """The resolution as (height, width)."""
        return (self.resolution, self.resolution) if isinstance(self.resolution, int) else self.resolution

    @property
    def says_numbers(self) -> bool:
        """Whether a mean, a standard deviation or a scale is given."""
        return any(value is not None for value in (self.mean, self.std, self.scale))

    @property
    def of_bytes(self) -> bool:
        """Whether the numbers are those of pixels of 0..255."""
        mean, std = (max(map(abs, given or (0.0,))) for given in (self.mean, self.std))
        return self.scale is not None or mean > 1 or std > _STD_OF_BYTES

    def over(self, usual: Preprocessing) -> Preprocessing:
        """`usual` with everything said here in its place."""
        said = {key: value for key in ("crop", "interpolation", "order") if (value := getattr(self, key)) is not None}
        return replace(usual, **said, **self._numbers(usual))

    def _numbers(self, usual: Preprocessing) -> dict[str, Any]:
        if not self.says_numbers:
            return {}
        self._check()
        mean, std = self._all(self.mean, usual), self._all(self.std, usual)
        if not self.of_bytes:
            return {"mean": mean or usual.mean, "std": std or usual.std}
        if self.scale is not None:
            std = tuple(1 / value for value in self._all(self.scale, usual) or ())
        elif std is None:
            std = (1.0,) * usual.channels
        mean = (0.0,) * usual.channels if mean is None else mean
        return {"mean": tuple(value / 255 for value in mean), "std": tuple(value / 255 for value in std)}

    def _check(self) -> None:
        for name, given in (("mean", self.mean), ("std", self.std), ("scale", self.scale)):
            bad = [v for v in given or () if not isfinite(v) or abs(v) > _MOST or (name != "mean" and v <= 0)]
            if bad:
                raise FileError(
                    f"preprocessing: {name} must be {'finite' if name == 'mean' else 'above 0'}, not {bad[0]:g}"
                )
        if self.scale is not None and self.std is not None:
            raise FileError("scale multiplies and std divides by the same thing: give one of them")
        if self.std is not None and self.of_bytes and max(self.std) < 1:
            raise FileError(
                f"the mean is of pixels of 0..255 and the std, {listed(self.std)}, below 1: "
                "a factor is --scale, and a std of 0..1 goes with a mean of 0..1"
            )
        if self.std is not None and self.of_bytes and self.mean is not None and 0 < max(map(abs, self.mean)) <= 1:
            raise FileError(
                f"the std, {listed(self.std)}, is of pixels of 0..255 and the mean, {listed(self.mean)}, of 0..1: "
                "give both in one of them"
            )

    def _all(self, given: tuple[float, ...] | None, usual: Preprocessing) -> tuple[float, ...] | None:
        return given * usual.channels if given is not None and len(given) == 1 else given


def described(preprocessing: Preprocessing) -> str:
    """The numbers of a preparation for people, of 0..255 where those of 0..1 would be tiny."""
    of_bytes = max(preprocessing.std) < 0.02
    factor, pixels = (255, "0..255") if of_bytes else (1, "0..1")
    mean, std = (listed([value * factor for value in values]) for values in (preprocessing.mean, preprocessing.std))
    order = {"rgb": ", RGB", "bgr": ", BGR"}[preprocessing.order] if preprocessing.channels == 3 else ""
    return f"mean {mean} and standard deviation {std} of pixels of {pixels}{order}"


def listed(values: Sequence[float]) -> str:
    """Numbers for people, one where all are the same."""
    texts = [f"{value:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)
