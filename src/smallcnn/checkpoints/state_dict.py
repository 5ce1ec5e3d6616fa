"""Finds the weights in a training script's checkpoint by the usual keys, among everything else it holds.

Averaged weights (EMA) are preferred to plain ones, as the network is evaluated with them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from smallcnn.checkpoints.pickles import Stub
from smallcnn.checkpoints.tensors import Numbers
from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

_PLAIN = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module", "shadow",
)  # fmt: skip
_AVERAGED = (
    "state_dict_ema", "ema_state_dict", "model_state_dict_ema", "model_ema", "ema_model", "net_ema", "params_ema",
    "ema",
)  # fmt: skip
_NO_WEIGHTS = ("optim", "sched", "scaler", "callbacks", "loops", "hyper_parameters", "criterion", "args", "random")
_WRAPPING = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # they add steps
_COUNTERS = ("num_batches_tracked", "n_averaged", "num_updates", "decay", "initted", "step")
_DEEPEST = 8  # nested wrappers
_DEEPEST_MODULE = 50  # nested modules
MOST_TENSORS = 5000
"""Tensor limit; NASNet-A has 1,500. Names are compared with those of every network."""

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """Tensors by name in file order, and notes on the choices made."""

    tensors: dict[str, Numbers]
    notes: tuple[str, ...] = ()


def choose(content: object) -> Chosen:
    """The weights in `content`, as `smallcnn.checkpoints.torch_files` reads it; FileError if there are none."""
    found = _Search().within(content, 0)
    named = {name: value for name, value in found.tensors.items() if not is_counter(name)}
    if not named:
        kind = content.name if isinstance(content, Stub) else type(content).__name__
        raise FileError(f"holds no weights: its content ({shown(kind)}) has no named tensors")
    return Chosen(unwrapped(named), found.notes)


def is_counter(name: str) -> bool:
    """Whether the tensor of this name only counts, as that of a batch norm's batches does."""
    return name.rpartition(".")[2] in _COUNTERS


def unwrapped(tensors: Mapping[str, T]) -> dict[str, T]:
    """Removes the name steps added by DataParallel, torch.compile and the like, unless two names would clash."""
    short = {
        ".".join(step for step in name.split(".") if step not in _WRAPPING): value for name, value in tensors.items()
    }
    return short if len(short) == len(tensors) else dict(tensors)


class _Search:
    """Visits each container once, however often the file refers to it."""

    def __init__(self) -> None:
        self.done: dict[int, Chosen] = {}
        self.visited = 0

    def within(self, value: object, depth: int) -> Chosen:
        """The weights in `value`, by name."""
        if id(value) not in self.done:
            self.done[id(value)] = Chosen({})  # for a container that holds itself
            self.done[id(value)] = self._found(value, depth) if depth < _DEEPEST else Chosen({})
        return self.done[id(value)]

    def _found(self, value: object, depth: int) -> Chosen:
        if _is_module(value):
            assert isinstance(value, Stub)
            note = (
                f"a pickled network ({shown(value.name)}): its weights are read, its code is not run; "
                "torch.save(model.state_dict(), 'weights.pth') saves only the weights"
            )
            return Chosen(dict(self._of_module(value, "", 0)), (note,))
        entries = _entries(value)
        inside = {
            name: found
            for name, inner in entries.items()
            if _may_hold(name, inner) and (found := self.within(inner, depth + 1)).tensors
        }
        plain = next((name for name in _PLAIN if name in inside), None)
        averaged = next((name for name in _AVERAGED if name in inside), None)
        if plain and averaged:
            return _of_two(plain, inside[plain], averaged, inside[averaged])
        if chosen := averaged or plain:
            return inside[chosen]
        own = {name: inner for name, inner in entries.items() if isinstance(inner, Numbers)}
        if not own and len(inside) == 1:
            return next(iter(inside.values()))
        notes: tuple[str, ...] = ()
        for name, found in inside.items():  # parts of a network, or several networks
            self._count(len(found.tensors))
            own |= {f"{name}.{inner}": numbers for inner, numbers in found.tensors.items()}
            notes += found.notes
        return Chosen(own, notes)

    def _of_module(self, module: Stub, prefix: str, depth: int) -> Iterator[tuple[str, Numbers]]:
        """The content of its `state_dict()`: parameters and persistent buffers, then submodules."""
        state = _entries(module.state)
        passing = state.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            for name, value in _entries(state.get(group)).items():
                if isinstance(value, Numbers) and not (isinstance(passing, list) and name in passing):
                    self._count(1)
                    yield f"{prefix}{name}", value
        for name, inner in _entries(state.get("_modules")).items():
            self._count(1)
            if _is_module(inner) and depth < _DEEPEST_MODULE:
                assert isinstance(inner, Stub)
                yield from self._of_module(inner, f"{prefix}{name}.", depth + 1)

    def _count(self, more: int) -> None:
        self.visited += more
        if self.visited > MOST_TENSORS:
            raise FileError(f"holds more than {MOST_TENSORS:,} tensors, more than any network here has")


def _of_two(plain: str, one: Chosen, averaged: str, other: Chosen) -> Chosen:
    """The averaged weights if they are complete, else the plain ones."""
    lacking = _bare(one) - _bare(other)
    if lacking:
        lost = f"the averaged weights in {averaged!r} lack {len(lacking)} of them ({shown(min(lacking))})"
        return Chosen(one.tensors, (*one.notes, f"used the plain weights in {plain!r}: {lost}"))
    return Chosen(
        other.tensors, (*other.notes, f"used the averaged weights in {averaged!r}, not the plain ones in {plain!r}")
    )


def _bare(found: Chosen) -> set[str]:
    return {name for name in unwrapped(found.tensors) if not is_counter(name)}


def _entries(value: object) -> Mapping[str, object]:
    """What a container holds, by name or place; an object's attributes."""
    match value:
        case dict():
            return {name: inner for name, inner in value.items() if isinstance(name, str)}
        case list() | tuple():
            return {str(place): inner for place, inner in enumerate(value)}
        case Stub(entries=entries) if entries:
            return _entries(entries)
        case Stub(state=dict() as state):
            return _entries(state)
    return {}


def _is_module(value: object) -> bool:
    state = value.state if isinstance(value, Stub) else None
    return isinstance(state, dict) and isinstance(state.get("_modules"), dict)


def _may_hold(name: str, value: object) -> bool:
    """Whether this may hold weights; an optimizer's tensors are not weights."""
    if isinstance(value, Numbers) or any(word in name.lower() for word in _NO_WEIGHTS):
        return False
    return not (isinstance(value, dict) and "param_groups" in value)
