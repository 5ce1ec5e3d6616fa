"""Denormal numbers, those below 1.2e-38, taken for zero while an engine runs.

Many processors compute with them a hundred times as slowly as with others. Whether they do is a setting of each thread,
in a register that the C library can read and write.
"""

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_Call = Callable[[Any, Any], object]


@contextmanager
def flushed(on_threads: _Call | None = None) -> Iterator[None]:
    """Takes denormal inputs and results for zero on the calling thread, whose setting is restored at the end.

    `on_threads` calls a C function with a pointer on several threads, all to be set, the calling one among them. A
    thread started meanwhile inherits the setting on Linux. Does nothing on systems other than Linux, macOS and Windows.
    """
    register = _register()
    if register is None:
        yield
        return
    before = register.read()
    register.write(register.flushing(before), on_threads)
    try:
        yield
    finally:
        register.write(before, on_threads)


class _Environment:
    """C's floating-point environment, fenv_t: `size` bytes, with the register at `offset` and its `bits` to set."""

    def __init__(self, size: int, offset: int, bits: int) -> None:
        library = ctypes.PyDLL(None)  # its calls take less time than releasing the GIL would
        self._read, self._write = library.fegetenv, library.fesetenv
        self._size, self._offset, self._bits = size, offset, bits

    def read(self) -> Any:
        """The calling thread's environment."""
        environment = ctypes.create_string_buffer(self._size)
        self._read(environment)
        return environment

    def flushing(self, environment: Any) -> Any:
        """The same with denormal numbers taken for zero."""
        changed = ctypes.create_string_buffer(environment.raw, self._size)
        ctypes.c_uint32.from_buffer(changed, self._offset).value |= self._bits
        return changed

    def write(self, environment: Any, on_threads: _Call | None) -> None:
        """Sets the environment of the calling thread, or of several."""
        if on_threads:
            on_threads(self._write, environment)
        else:
            self._write(environment)


class _ControlWord:
    """The control word of Microsoft's C library; of the calling thread only."""

    _DENORMALS, _FLUSH = 0x03000000, 0x01000000  # _MCW_DN, _DN_FLUSH

    def __init__(self) -> None:
        self._control = ctypes.PyDLL("ucrtbase")._controlfp_s

    def read(self) -> int:
        """How the calling thread takes denormal numbers."""
        word = ctypes.c_uint()
        self._control(ctypes.byref(word), 0, 0)
        return word.value & self._DENORMALS

    def flushing(self, word: int) -> int:  # noqa: ARG002
        """The setting that takes them for zero."""
        return self._FLUSH

    def write(self, word: int, on_threads: _Call | None) -> None:  # noqa: ARG002
        """Sets how the calling thread takes them."""
        self._control(ctypes.byref(ctypes.c_uint()), word, self._DENORMALS)


_FTZ_DAZ, _FZ = 0x8040, 1 << 24  # bits of x86's MXCSR and of ARM's FPCR
_LAYOUTS = {  # bytes of fenv_t, and the offset of the register in it
    ("linux", "x86_64"): (32, 28, _FTZ_DAZ),
    ("linux", "aarch64"): (8, 0, _FZ),
    ("darwin", "x86_64"): (16, 4, _FTZ_DAZ),
    ("darwin", "arm64"): (16, 8, _FZ),
}


@cache
def _register() -> _Environment | _ControlWord | None:
    """The register of this machine, if its place is known."""
    try:
        if sys.platform == "win32":
            return _ControlWord()
        layout = _LAYOUTS.get((sys.platform, platform.machine()))
        return _Environment(*layout) if layout else None
    except (AttributeError, OSError):  # a C library without them
        return None
