"""One call of a Keras layer while the network is built: its inputs, settings and tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View
from smallcnn.ir.checks import is_number, shown
from smallcnn.keras.description import Layer

Value = View | list[View] | object


@dataclass(frozen=True)
class Call:
    """A layer, its arguments, and the major version of the Keras that described it.

    `label` names what it adds; `stored` reads its tensors.
    """

    layer: Layer
    arguments: list[Value]
    named: Mapping[str, Value]
    label: str
    version: int
    stored: Callable[[], list[Array]]

    def view(self) -> View:
        """Its only input, for a computation."""
        views = self.views()
        if len(views) != 1:
            raise FileError(f"reads {len(views)} results, not one")
        return views[0]

    def views(self) -> list[View]:
        """Its inputs, for a computation."""
        found: list[View] = []
        for value in (*self.arguments, *self.named.values()):
            found.extend(value if isinstance(value, list) else [value] if isinstance(value, View) else [])
        if ended := [view.ended for view in found if view.ended]:
            raise FileError(f"reads the result of a {ended[0]}, which is supported only as the last operator")
        return found

    def moved(self) -> View:
        """Its input, for operators that only move data and may follow a softmax."""
        value = self.arguments[0] if self.arguments else None
        if not isinstance(value, View):
            raise FileError("reads no result")
        return value

    def pair(self, *names: str) -> tuple[View | Array, View | Array]:
        """Two operands, by position or name: results or constants."""
        values: list[Value] = [*self.arguments, *(self.named[name] for name in names if name in self.named)]
        if len(values) == 1 and isinstance(values[0], list):
            values = list(values[0])
        if len(values) < 2:
            raise FileError("lacks an operand")
        a, b = (value if isinstance(value, View) else _constant(value) for value in values[:2])
        self.views()
        return a, b

    def option(self, *names: str, default: Any = None) -> Any:
        """A setting under the first of its names found in the description; for operations also an argument."""
        for name in names:
            for settings in (self.layer.config, self.named):
                if settings.get(name) is not None:
                    return settings[name]
        return default

    def real(self, *names: str, default: float) -> float:
        """A setting that is a number."""
        value = self.option(*names, default=default)
        if not is_number(value):
            raise FileError(f"has {names[0]} {shown(value)}, not a number")
        return float(value)

    def flag(self, *names: str, default: bool) -> bool:
        """A setting that is true or false."""
        return bool(self.option(*names, default=default))

    def whole(self, *names: str) -> int:
        """A setting that is a whole number."""
        value = self.option(*names)
        if not isinstance(value, int) or isinstance(value, bool):
            raise FileError(f"has {names[0]} {shown(value)}, not a whole number")
        return value

    def two(self, *names: str, default: Any = None) -> tuple[int, int]:
        """A setting that is (height, width), or one number for both."""
        value = self.option(*names, default=default)
        pair = [value] * 2 if isinstance(value, int) else value
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
            raise FileError(f"has {names[0]} {shown(value)}, not (height, width)")
        return (pair[0], pair[1])

    def tensors(self, *names: str) -> dict[str, Array]:
        """Its tensors under these names, in file order. FileError unless the number matches."""
        values = self.stored()
        if len(values) != len(names):
            raise FileError(f"has {len(values)} tensors in the file, not {len(names)} ({', '.join(names) or 'none'})")
        return dict(zip(names, values, strict=True))


def _constant(value: object) -> Array:
    """A constant in a description: a number or a list of numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if not array.size or array.ndim > 4 or not np.isfinite(array).all():
        raise FileError(f"computes with {shown(value)}, which is not a number or a list of them")
    return array


def check_channels_last(call: Call) -> None:
    """FileError if a layer says that its channels come first."""
    said = call.option("data_format", "dim_ordering", default="channels_last")
    if said not in ("channels_last", "tf", "default"):
        raise FileError(f"has data_format {shown(said)}; only channels_last is supported")


Reader = Callable[[Network, Call], View]
"""Adds a layer to the network and returns its result."""
