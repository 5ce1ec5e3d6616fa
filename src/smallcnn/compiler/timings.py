"""Times of kernels measured on this machine, kept between commands: a file for each kernel, in the cache.

They hold for one processor, one number of threads and one version of the kernels.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from smallcnn.compiler import build, calls
from smallcnn.compiler.calls import Context
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.specs import Tile
from smallcnn.system.cache import cache_folder, keep, recalled
from smallcnn.system.cpu import cpu_name

_MOST = 1024
"""Rows, shares, pixels or vectors that no form has."""


class Timings:
    """Nanoseconds by choice, for each kernel measured."""

    def __init__(self, context: Context, threads: int) -> None:
        cpu = hashlib.sha256(cpu_name().encode()).hexdigest()[:16]
        self.context = context
        self.folder = cache_folder() / "tuned" / cpu / build.version() / f"{threads}-threads"
        self._read: dict[str, dict[Choice, float]] = {}

    def key(self, layers: Sequence[Layer]) -> str:
        """Equal for equal kernels on equal maps, whatever their choice."""
        plain = calls.call(layers, Choice((Tile(1, 1),) * len(layers), rows=1), self.context)
        out = layers[-1].output.storage
        return f"{build.kernel_name(plain.spec, self.context.machine)}-{out.height}x{out.width}"

    def of(self, key: str) -> dict[Choice, float]:
        """The times of a kernel; empty if it was not measured or the file is damaged."""
        if key not in self._read:
            self._read[key] = _parse(recalled(self.folder / f"{key}.json") or b"[]")
        return self._read[key]

    def put(self, key: str, times: Mapping[Choice, float]) -> None:
        """Adds times, in place of older ones of the same choices."""
        self.of(key).update({choice: float(round(ns)) for choice, ns in times.items()})
        rows = [{**asdict(choice), "ns": ns} for choice, ns in self.of(key).items()]
        keep(self.folder / f"{key}.json", json.dumps(rows).encode())


def _parse(content: bytes) -> dict[Choice, float]:
    try:
        return dict(map(_row, json.loads(content)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _row(record: dict[str, Any]) -> tuple[Choice, float]:
    """One form and its time. Raises ValueError, KeyError, TypeError or AttributeError if it is damaged."""
    tiles = tuple(Tile(**tile) for tile in record["tiles"])
    choice, ns = Choice(tiles, record["rows"], record["shares"]), record["ns"]
    positive = [choice.shares, *(number for tile in tiles for number in (tile.pixels, tile.vectors, tile.unroll))]
    whole = all(type(number) is int and number < _MOST for number in (choice.rows, *positive))
    if not (whole and min(positive) > 0 <= choice.rows and all(type(tile.across) is bool for tile in tiles)):
        raise ValueError("not a choice")
    if not (isinstance(ns, int | float) and math.isfinite(ns) and ns > 0):
        raise ValueError("not a time")
    return choice, float(ns)
