"""Reads a pickle without running it: builds plain containers and replaces every object with an inert stub.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever the program names. This
one imports nothing and calls only the builders it is given; an object without a builder becomes a `Stub` that keeps
its arguments, state and entries. Work is bounded: the number of steps is limited, and each allocates no more than it
takes from the file. Builders must respect that, as a pickle can pass them the same long value any number of times.

Opcodes are decoded by `pickletools`, which describes all of them and executes none.
"""

import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

MOST_STEPS = 1_000_000
"""Step limit; a network with its optimizer takes about 50,000."""

_LONGEST_KEY = 1000  # characters; repeated comparisons of longer ones would take forever

_RUNS = re.compile(
    r"(os|posix|nt|subprocess|sys|shutil|socket|pty|runpy|importlib|ctypes|webbrowser|marshal)\..*"
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|__import__|breakpoint|input)"
)
"""Names that a checkpoint can only contain in order to run code. Nothing runs here, but such a file is untrusted."""

Builder = Callable[..., object]


class Named:
    """A class or function that a pickle names. It is not imported."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if _RUNS.fullmatch(name):
            raise FileError(f"refused: it could run {shown(name)} if loaded with PyTorch or pickle; nothing was run")
        self.name = name


class Stub:
    """A placeholder for an object: the name of its class or maker, and the arguments the pickle would have passed."""

    __slots__ = ("args", "entries", "name", "state")

    def __init__(self, name: str, args: object = ()) -> None:
        self.name = name
        self.args = args
        self.state: object = None
        self.entries: dict[Any, object] = {}

    def take(self, state: object) -> None:
        """Takes the state the object would be set to."""
        self.state = state


class Partial:
    """A builder's value that is complete only once the pickle has set its state."""

    def take(self, state: Any) -> None:
        """Takes the state as stored in the pickle."""
        raise NotImplementedError


def load(
    file: IO[bytes],
    builders: Mapping[str, Builder],
    persistent: Callable[[Any], object],
    most_steps: int = MOST_STEPS,
) -> object:
    """The value of the pickle at the current position of `file`, which is left at its end.

    `builders` make values for known names from the arguments in the file; `persistent` gives the value of an id that
    refers to data outside the pickle. Both may raise FileError, ValueError or TypeError.

    Raises FileError if the pickle is damaged or does more than any checkpoint does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's warning about invalid escapes in text
            return _Machine(builders, persistent).run(file, most_steps)
    except FileError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, AttributeError, AssertionError) as error:
        raise FileError("damaged: its pickle is cut off or overwritten") from error


def key(value: object) -> object:
    """`value` as a dict key: itself if plain and short, else a key that equals nothing."""
    if isinstance(value, str | bytes):
        return value if len(value) <= _LONGEST_KEY else object()
    if isinstance(value, int):
        return value if value.bit_length() <= 64 else object()
    return value if value is None or isinstance(value, float) else object()


def _named(words: str) -> Named:
    """A name as GLOBAL and INST have it, "module name"; a longer one than any is nothing that is known."""
    return Named(words.replace(" ", ".", 1) if len(words) <= 2 * _LONGEST_KEY else "")


class _Machine:
    """The stack, its marks, and the memo."""

    def __init__(self, builders: Mapping[str, Builder], persistent: Callable[[Any], object]) -> None:
        self.builders, self.persistent = builders, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.steps = {name: getattr(self, f"_{name.lower()}") for name in _STEPS}

    def run(self, file: IO[bytes], most_steps: int) -> object:
        push, steps = self.stack.append, self.steps
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number == most_steps:
                raise FileError(f"its pickle takes more than {most_steps:,} steps, which no checkpoint needs")
            name = opcode.name
            if name in _LITERALS:
                push(argument)
            elif name in _CONSTANTS:
                push(_CONSTANTS[name])
            elif name in _EMPTY:
                push(_EMPTY[name]())
            elif name in steps:
                steps[name](argument)
            elif name not in _WITHOUT_EFFECT:
                raise FileError(f"damaged: its pickle has {name}, which no checkpoint needs")
        return self.stack.pop()

    # --- the stack ---

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    _binget = _long_binget = _get

    # --- containers ---

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: None) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: None) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: None) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    _frozenset = _list

    def _dict(self, _: None) -> None:
        values = self._since_mark()
        self.stack.append(dict(zip(map(key, values[::2]), values[1::2], strict=True)))

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, _: None) -> None:
        values = self._since_mark()
        self._extend(values)

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Stub):
            raise FileError("damaged: its pickle appends to something that is not a list")

    def _setitem(self, _: None) -> None:
        values = self.stack[-2:]
        del self.stack[-2:]
        self._update(values)

    def _setitems(self, _: None) -> None:
        values = self._since_mark()
        self._update(values)

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Stub) else target
        if not isinstance(entries, dict):
            raise FileError("damaged: its pickle sets entries of something that is not a dict")
        entries.update(zip(map(key, values[::2]), values[1::2], strict=True))

    # --- objects, none of which is created ---

    def _global(self, name: str) -> None:
        self.stack.append(_named(name))

    def _stack_global(self, _: None) -> None:
        module, name = self.stack[-2:]
        short = all(isinstance(part, str) and len(part) <= _LONGEST_KEY for part in (module, name))
        self.stack[-2:] = [Named(f"{module}.{name}" if short else "")]

    def _reduce(self, _: None) -> None:
        maker, args = self.stack[-2:]
        self.stack[-2:] = [self._made(maker, args)]

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        maker, args, _named = self.stack[-3:]
        self.stack[-3:] = [self._made(maker, args)]

    def _obj(self, _: None) -> None:
        maker, *args = self._since_mark()
        self.stack.append(self._made(maker, tuple(args)))

    def _inst(self, name: str) -> None:
        args = self._since_mark()
        self.stack.append(self._made(_named(name), tuple(args)))

    def _made(self, maker: object, args: object) -> object:
        name = maker.name if isinstance(maker, Named) else ""
        if name in self.builders and isinstance(args, tuple):
            return self.builders[name](*args)
        return Stub(name, args)

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Stub | Partial):
            self.stack[-1].take(state)

    def _ext1(self, number: int) -> None:
        self.stack.append(Named(f"extension {number}"))

    _ext2 = _ext4 = _ext1

    def _persid(self, identity: str) -> None:
        self.stack.append(self.persistent(identity))

    def _binpersid(self, _: None) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict}
_WITHOUT_EFFECT = frozenset(("PROTO", "FRAME", "STOP"))
_STEPS = (
    "MARK", "POP", "POP_MARK", "DUP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "FROZENSET", "DICT", "APPEND", "APPENDS", "ADDITEMS", "SETITEM",
    "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD", "EXT1", "EXT2",
    "EXT4", "PERSID", "BINPERSID",
)  # fmt: skip
