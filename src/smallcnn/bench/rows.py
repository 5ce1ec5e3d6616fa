"""Results of timing: a row for each candidate, compared with the others of its network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Row:
    """Results of one candidate: times in milliseconds for one image, memory in bytes (see `FirstUse`).

    `error` is the relative error on the probe image. `share_of_peak` is the speed as a share of
    `peak_mult_adds_per_second`, the machine's peak on as many threads, of bytes where `precision` is int8; both are
    None without Halide.

    `vs_best_peer` is the fastest other engine's median over this row's, if the model was timed both compiled and in
    another engine. `mean_vs_best_peer` is its geometric mean over all compiled rows, if there are several models.
    `vs_float` is the float network's median over that of the int8 one, in the same engine if it was timed there, else
    in its fastest.
    """

    file: str
    model: str
    engine: str
    precision: str
    threads: int
    median_ms: float
    min_ms: float
    max_ms: float
    p90_ms: float
    runs: int
    mult_adds: int
    mult_adds_per_second: float
    peak_mult_adds_per_second: float | None
    share_of_peak: float | None
    vs_best_peer: float | None
    mean_vs_best_peer: float | None
    end_to_end_ms: float
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    added_private_bytes: int | None
    file_bytes: int
    verified: bool
    error: float
    cpu: str
    vs_float: float | None = None


def compared(rows: Sequence[Row]) -> list[Row]:
    """The rows with `vs_best_peer`, its mean and `vs_float` filled in."""
    result = [replace(row, vs_best_peer=_vs_best_peer(row, rows), vs_float=_vs_float(row, rows)) for row in rows]
    compiled = [row for row in result if row.engine == "compiled" and row.vs_best_peer]
    if len({(row.model, row.mult_adds, row.precision) for row in compiled}) < 2:
        return result
    ratios = [row.vs_best_peer for row in compiled if row.vs_best_peer]
    mean = float(np.exp(np.mean(np.log(ratios))))
    return [replace(row, mean_vs_best_peer=mean) for row in result]


def _vs_best_peer(row: Row, rows: Sequence[Row]) -> float | None:
    same = [other for other in _of_network(row, rows) if other.precision == row.precision]
    peers = [other.median_ms for other in same if other.engine != "compiled"]
    return min(peers) / row.median_ms if peers and len(peers) < len(same) else None


def _vs_float(row: Row, rows: Sequence[Row]) -> float | None:
    floats = [other for other in _of_network(row, rows) if other.precision == "float32"]
    if row.precision == "float32" or not floats:
        return None
    here = [other for other in floats if other.engine == row.engine]
    return min(other.median_ms for other in here or floats) / row.median_ms


def _of_network(row: Row, rows: Sequence[Row]) -> list[Row]:
    return [other for other in rows if (other.model, other.mult_adds) == (row.model, row.mult_adds)]
