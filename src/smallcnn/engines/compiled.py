"""Loads and runs a compiled network in a .so or .dll through ctypes; needs only numpy.

net = compiled.load("mobilenet_v2.so", threads=2)
net.run(batch)            uint8 (N, H, W, C) -> {output: array (N, ...)}
net.outputs               what each output carries, by name
net.metadata              metadata written by `smallcnn compile`

Such a file is a program: loading it runs its code, like any shared library. Before that, only its `seal` is checked.
"""

import ctypes
import itertools
import json
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smallcnn.engines.seal import check
from smallcnn.errors import DataError, FileError, SmallcnnError
from smallcnn.ir.types import NUMBERS, Grid, Tensor
from smallcnn.system.cpu import usable_cores

if TYPE_CHECKING:
    from smallcnn.transform.limits import Limits


def load(path: Path | str, threads: int | None = None, limits: "Limits | None" = None) -> "CompiledFile":
    """Opens a compiled file. The default for `threads` is one per usable core; a detector has its own `limits`.

    Raises FileError if it is missing, damaged, foreign, of another format, or for another machine.
    """
    if threads is None:
        threads = usable_cores()
    if threads < 1:
        raise SmallcnnError(f"threads must be at least 1, not {threads}")
    path = Path(path)
    try:
        with path.open("rb", buffering=0) as file:
            target = check(file)
            library = _open(path, file.fileno())
        try:
            _check_cpu(library, target)
            return CompiledFile(path, library, threads, limits)
        except SmallcnnError:
            _unload(library)
            raise
    except OSError as error:
        raise FileError(f"{path}: cannot be loaded ({error.strerror or error})") from error
    except FileError as error:
        raise FileError(f"{path}: {error}") from None


class CompiledFile:
    """A loaded compiled file; see `load`. Calls from several threads take turns. `labels` names the steps for `time`.

    The library is unloaded with the object. A forked process gets its own working memory and threads.
    """

    def __init__(self, path: Path, library: ctypes.CDLL, threads: int, limits: "Limits | None" = None) -> None:
        self.path = path
        self.threads = threads
        self.metadata: dict[str, Any] = json.loads(library.smallcnn_metadata())
        self.input_shape = (library.smallcnn_height(), library.smallcnn_width(), library.smallcnn_channels())
        outputs = range(library.smallcnn_output_count())
        self.outputs = {library.smallcnn_output_name(i).decode(): _output(library, i) for i in outputs}
        self.labels = tuple(library.smallcnn_label(step).decode() for step in range(library.smallcnn_steps()))
        self._empties = {name: (tensor.shape, np.dtype(tensor.number)) for name, tensor in self.outputs.items()}
        self._places = ctypes.c_void_p * len(self.outputs)
        self._library = library
        self._context = _Context(library, threads, limits)
        weakref.finalize(self, _close, library, self._context).atexit = False  # daemon threads may still be running it

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Runs C-contiguous uint8 (N, H, W, C); outputs by name, (N, ...). Raises DataError for any other input."""
        self._check(batch, 4)
        answer = self._empty(len(batch))
        if not len(batch):
            return answer
        image, rows = _address(batch), [(_address(array), array.strides[0]) for array in answer.values()]
        with self._context as handle:
            for i in range(len(batch)):
                places = self._places(*[start + i * step for start, step in rows])
                error = self._library.smallcnn_run(handle, image + i * batch.strides[0], places)
                if error:
                    raise RuntimeError(f"{self.path}: {_text(self._library, error)}")
        return answer

    def time(self, image: np.ndarray) -> np.ndarray:
        """Times one run on uint8 (H, W, C): int64 nanoseconds per step, in the order of `labels`."""
        self._check(image, 3)
        answer, times = self._empty(1), np.empty(len(self.labels), np.int64)
        places = self._places(*map(_address, answer.values()))
        with self._context as handle:
            error = self._library.smallcnn_run_timed(handle, _address(image), places, _address(times))
        if error:
            raise RuntimeError(f"{self.path}: {_text(self._library, error)}")
        return times

    @property
    def working_bytes(self) -> int:
        """Working memory: the arena, and each thread's scratch and tables. The weights stay in the file."""
        return int(self._library.smallcnn_memory(self.threads))

    @property
    def scratch_bytes(self) -> int:
        """Peak scratch used by kernels so far on one thread, out of the planned scratch."""
        with self._context as handle:
            return int(self._library.smallcnn_scratch(handle))

    def _empty(self, images: int) -> dict[str, np.ndarray]:
        return {name: np.empty((images, *shape), number) for name, (shape, number) in self._empties.items()}

    def _check(self, batch: np.ndarray, dimensions: int) -> None:
        if batch.dtype != np.uint8 or batch.ndim != dimensions or batch.shape[-3:] != self.input_shape:
            wanted = ", ".join(map(str, ("N", *self.input_shape)[-dimensions:]))
            raise DataError(f"the network takes uint8 ({wanted}), not {batch.dtype} {batch.shape}")
        if not batch.flags.c_contiguous:
            raise DataError(
                f"the network takes C-contiguous images, not strides {batch.strides}; use np.ascontiguousarray"
            )


class _Context:
    """The library's context to run in, used by one caller at a time."""

    def __init__(self, library: ctypes.CDLL, threads: int, limits: "Limits | None") -> None:
        self._library, self._threads, self._limits = library, threads, limits
        self.forget()
        with self:
            _CONTEXTS.add(self)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._handle: ctypes.c_void_p | None = None

    def __enter__(self) -> ctypes.c_void_p:
        self._lock.acquire()
        try:
            if self._handle is None:
                handle = ctypes.c_void_p()
                error = self._library.smallcnn_create(self._threads, ctypes.byref(handle))
                if error:
                    raise SmallcnnError(f"cannot run on {self._threads} threads: {_text(self._library, error)}")
                self._handle = handle
                if self._limits:
                    _limit(self._library, handle, self._limits)
            return self._handle
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def destroy(self) -> None:
        self._library.smallcnn_destroy(self._handle)


def _limit(library: ctypes.CDLL, handle: ctypes.c_void_p, limits: "Limits") -> None:
    """Sets what a detector keeps. Raises FileError if its file cannot."""
    try:
        function = library.smallcnn_limit
    except AttributeError:
        raise FileError(f"{limits} is fixed in this file, of an older smallcnn; compile it again") from None
    function.restype, function.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_float, ctypes.c_float, ctypes.c_int)
    values = {"threshold": -1.0, "overlap": -1.0, "most": -1} | limits.given
    if error := function(handle, *values.values()):
        raise FileError(f"cannot keep what {limits} says: {_text(library, error)}")


_CONTEXTS: "weakref.WeakSet[_Context]" = weakref.WeakSet()


def _after_fork() -> None:
    """Resets every context: its threads, and a holder of its lock, exist only in the parent."""
    for context in _CONTEXTS:
        context.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_LOADS = itertools.count()


def _open(path: Path, descriptor: int) -> ctypes.CDLL:
    """Loads the file that was checked.

    The loader identifies libraries by name. On Linux each load uses a different name, so that a file that replaced one
    in use is loaded. The same file is loaded once.
    """
    if sys.platform == "win32":
        name = str(path.resolve())  # cannot be replaced while in use
    else:
        steps = f"{next(_LOADS):b}".replace("0", "/").replace("1", "/.")
        name = f"/proc/self{steps}/fd/{descriptor}"
    library = ctypes.CDLL(name)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, ...]] = {  # result, arguments
        "error": (text, number),
        "metadata": (text,),
        "height": (number,),
        "width": (number,),
        "channels": (number,),
        "output_count": (number,),
        "output_name": (text, number),
        "output_shape": (number, number, pointer),
        "output_number": (number, number),
        "output_scale": (ctypes.c_double, number),
        "output_zero": (number, number),
        "has": (number, text),
        "features": (text,),
        "supported": (number,),
        "memory": (ctypes.c_size_t, number),
        "create": (number, number, pointer),
        "destroy": (None, pointer),
        "run": (number, pointer, pointer, pointer),
        "run_timed": (number, pointer, pointer, pointer, pointer),
        "steps": (number,),
        "label": (text, number),
        "scratch": (ctypes.c_size_t, pointer),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, f"smallcnn_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_DIMENSIONS = 3  # SMALLCNN_DIMENSIONS of the C header


def _output(library: ctypes.CDLL, output: int) -> Tensor:
    """What an output carries."""
    shape = (ctypes.c_int * _DIMENSIONS)()
    count, scale = library.smallcnn_output_shape(output, shape), library.smallcnn_output_scale(output)
    grid = Grid((scale,), (library.smallcnn_output_zero(output),)) if scale else None
    return Tensor(tuple(shape[:count]), NUMBERS[library.smallcnn_output_number(output)], grid)


def _check_cpu(library: ctypes.CDLL, target: str) -> None:
    """Raises FileError, naming the target to compile for, if this CPU lacks features the kernels use."""
    if library.smallcnn_supported():
        return
    needed = library.smallcnn_features().decode()
    platform_name = "-".join(target.split("-")[:3])
    levels = ("vnni", "avx512", "avxvnni", "avx2", "sse41", "dotprod")  # the best first
    best = next((level for level in levels if library.smallcnn_has(level.encode())), None)
    other = f"{platform_name}-{best}" if best else platform_name
    raise FileError(f"built for {needed}, this CPU has {best or 'less'}: compile it with --target {other}")


def _close(library: ctypes.CDLL, context: _Context) -> None:
    context.destroy()
    _unload(library)


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _address(array: np.ndarray) -> int:
    """The address of the first element; `array.ctypes` takes five times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data)) if array.flags.writeable else array.ctypes.data


def _text(library: ctypes.CDLL, error: int) -> str:
    return library.smallcnn_error(error).decode()
