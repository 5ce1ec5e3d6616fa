"""The time of one image, measured: a network is compiled for one thread of this machine and timed.

Other programs slow down what is timed with them. So the network and the original take turns, in blocks of 0.2 s; the
lower quartile of its runs counts for either; and the result is the ratio of the two times the time of the original,
which is the least of three at the beginning. Noise that lasts slows both alike, and short noise is in the slower runs.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.bench.bench import take_turns, verified
from smallcnn.compress.budget import Form, spelled_ms
from smallcnn.engines.operators import Operators
from smallcnn.errors import GraphError, require
from smallcnn.ir.graph import Graph
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_image
from smallcnn.runtime import Net
from smallcnn.system.cpu import cpu_name
from smallcnn.system.files import write
from smallcnn.transform.fold import fold_graph
from smallcnn.transform.quantize import Settings, quantize, without_integer_form

FILE = "times.json"
_SECONDS = 1.0
_FIRST = 3
"""Times that the original is timed at the beginning."""
_MOST = 5
"""Networks that are timed for one limit."""
_ENOUGH = 0.94
"""Share of a limit above which there is nothing to gain from another try."""
_AIM = 0.98


class Clock:
    """Times networks against the `original`. What was timed is kept in `folder`, for this processor."""

    def __init__(self, original: Model, folder: Path) -> None:
        self._original, self._file = original, folder / FILE
        self._compiled: Net | None = None
        self._room: tempfile.TemporaryDirectory[str] | None = None
        self._whole = 0.0  # the original's time in ms
        self._ratios: dict[str, float] = {}
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # none; damaged, or of another version
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            if stored["cpu"] == cpu_name():
                self._whole, self._ratios = stored["original_ms"], stored["ratios"]

    def milliseconds(self, model: Model, form: Form = "float32") -> float:
        """The time of a network in ms; in the form "int8", that which it has once it is quantized.

        Networks of the same shapes are timed once. Raises CompileError or GraphError for a network that cannot be
        compiled or quantized, MissingExtra without Halide.
        """
        changes = form == "int8" and not model.graph.integer
        key = f"{structure(model.graph)}{' as int8' if changes else ''}"
        if key not in self._ratios:
            require("a budget of time", "compile", "halide", "ziglang")
            made = _quantized(model) if changes else model
            ratio = self._ratio(made, alike=key == structure(self._original.graph))
            self._ratios |= {key: ratio, structure(made.graph): ratio}
            stored = {"cpu": cpu_name(), "original_ms": self._whole, "ratios": self._ratios}
            write(self._file, json.dumps(stored, indent=1).encode())
        return self._whole * self._ratios[key]

    def known(self, key: str) -> float | None:
        """The time in ms of a network with this `structure`; None if none was timed."""
        return self._whole * self._ratios[key] if key in self._ratios else None

    def within(
        self, smaller: Callable[[float], Model], limit: float, model: Model, estimate: Callable[[Graph], float],
        form: Form,
    ) -> Model:  # fmt: skip
        """The slowest network that was found to take at most `limit` ms, among those that `smaller` gives.

        `smaller` makes `model` smaller until the compiler's `estimate` is at most a number of ms. The first such number
        is the limit, by the ratio of the model's estimate to its time; each further one corrects it by what the last
        network took. Raises GraphError if none of five networks is within the limit, or `smaller` has none left.
        """
        aim = _AIM * limit * estimate(model.graph) / self.milliseconds(model, form)
        tried: list[tuple[float, Model]] = []
        while len(tried) < _MOST:
            try:
                made = smaller(aim)
            except GraphError as error:
                if any(took <= limit for took, _ in tried):
                    break
                raise GraphError(f"{spelled_ms(limit)} cannot be reached: {error}") from None
            before = next((took for took, other in tried if other.graph == made.graph), None)
            if before is not None and before <= limit:
                break
            if before is not None:  # channels go in steps: only a lower aim gives a smaller network
                aim *= _AIM
                continue
            took = self.milliseconds(made, form)
            tried.append((took, made))
            if _ENOUGH * limit <= took <= limit:
                break
            aim *= _AIM * limit / took
        good = [one for one in tried if one[0] <= limit]
        if not good:
            least = min(took for took, _ in tried)
            raise GraphError(
                f"{model.graph.name}: no network within {spelled_ms(limit)} found; the fastest of {len(tried)} takes "
                f"{spelled_ms(least)}"
            )
        return max(good, key=lambda one: one[0])[1]

    def _ratio(self, model: Model, *, alike: bool) -> float:
        """The time of a network as a share of the original's, in turns; 1 if it is `alike`."""
        if self._compiled is None:
            self._compiled = self._opened(self._original)
        self._whole = self._whole or min(_quartiles(self._compiled)[0] for _ in range(_FIRST))
        if alike:
            return 1.0
        net = self._opened(model)
        whole, own = _quartiles(self._compiled, net)
        verified(net)
        return own / whole

    def _opened(self, model: Model) -> Net:
        from smallcnn.compiler.compiling import compile_file

        if self._room is None:
            self._room = tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True)
        folder = Path(self._room.name)
        file = folder / f"{len(list(folder.iterdir()))}{'.dll' if sys.platform == 'win32' else '.so'}"
        compile_file(model, file, threads=1)
        net = runtime.open(file, threads=1)
        verified(net)
        return net


def _quartiles(*nets: Net) -> list[float]:
    """The time of each network in ms, in turns."""
    image = probe_image(nets[0].input_shape)
    runs = take_turns([partial(net.run, image) for net in nets], _SECONDS, lambda done: None)
    return [float(np.percentile(taken, 25)) for taken in runs]


def structure(graph: Graph) -> str:
    """What tells networks apart whose compiled files differ in more than numbers: operators and shapes."""
    folded = fold_graph(graph)
    nodes = [(node.op.kind, node.inputs, node.tensor.shape, node.tensor.number) for node in folded]
    weights = [(weight.shape, weight.tensor.number) for weight in folded.weights.values()]
    return hashlib.sha256(repr((nodes, weights)).encode()).hexdigest()[:16]


def _quantized(model: Model) -> Model:
    """The network with bytes, for its time alone: its ranges are those of the probe image."""
    settings = Settings(
        equalise=False, copy_channels=False, compensate=False, keep_float=without_integer_form(model.graph)
    )
    image = probe_image(model.graph.input_shape)
    return quantize(model, image, settings, operators=lambda graph: Operators(graph, 1))[0]
