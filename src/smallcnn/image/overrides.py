"""Preprocessing settings given by the user, which override a network's defaults.

    input = (pixel - mean) / std          pixels in 0..1; in 0..255 if the mean is above 1 or the std above 16
    input = (pixel - mean) * scale        pixels in 0..255, as in Caffe

Caffe's mean 104,117,123 is on the scale 0..255; given alone, nothing is divided. Numbers are in the order of the
network's channels: blue first if `order` is "bgr".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from smallcnn.errors import FileError
from smallcnn.image.fit import Fit, Order, Preprocessing

_MOST = 65536  # largest plausible mean or standard deviation of pixels
_STD_OF_BYTES = 16
"""A standard deviation above this is on the scale 0..255, if the mean does not tell; for 0..1 it is about 0.25."""


@dataclass(frozen=True)
class Overrides:
    """The given settings; None for those not given. A single `mean`, `std` or `scale` applies to all channels.

    `resolution` is (height, width), or one number for both.
    """

    resolution: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float | None = None
    interpolation: str | None = None
    scale: tuple[float, ...] | None = None
    order: Order | None = None
    fit: Fit | None = None

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
        """Whether the numbers are on the scale 0..255."""
        mean, std = (max(map(abs, given or (0.0,))) for given in (self.mean, self.std))
        return self.scale is not None or mean > 1 or std > _STD_OF_BYTES

    def over(self, usual: Preprocessing) -> Preprocessing:
        """`usual` with the settings given here replaced; "stretch" and "letterbox" alone show the whole image."""
        names = ("crop", "interpolation", "order", "fit")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.fit not in (None, "crop"):
            given.setdefault("crop", 1.0)
        return replace(usual, **given, **self._numbers(usual))

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
            raise FileError("scale is the inverse of std: give only one of them")
        if self.std is not None and self.of_bytes and max(self.std) < 1:
            raise FileError(
                f"the mean is on the scale 0..255 and the std, {listed(self.std)}, below 1: "
                "give a factor as --scale, or both mean and std on the scale 0..1"
            )
        if self.std is not None and self.of_bytes and self.mean is not None and 0 < max(map(abs, self.mean)) <= 1:
            raise FileError(
                f"the std, {listed(self.std)}, is on the scale 0..255 and the mean, {listed(self.mean)}, on 0..1: "
                "give both on one scale"
            )

    def _all(self, given: tuple[float, ...] | None, usual: Preprocessing) -> tuple[float, ...] | None:
        return given * usual.channels if given is not None and len(given) == 1 else given


def described(preprocessing: Preprocessing) -> str:
    """Mean and standard deviation for people, on the scale 0..255 if they would be tiny on 0..1."""
    of_bytes = max(preprocessing.std) < 0.02
    factor, pixels = (255, "0..255") if of_bytes else (1, "0..1")
    mean, std = (listed([value * factor for value in values]) for values in (preprocessing.mean, preprocessing.std))
    order = {"rgb": ", RGB", "bgr": ", BGR"}[preprocessing.order] if preprocessing.channels == 3 else ""
    return f"mean {mean} and standard deviation {std} of pixels of {pixels}{order}"


def listed(values: Sequence[float]) -> str:
    """Numbers for people; a single one if all are equal."""
    texts = [f"{value:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)
