"""The kernels in native/*.c as a shared library: compiled on first use, cached, loaded through ctypes."""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch
from torch import Tensor

from smallcnn.errors import CompileError, WriteError
from smallcnn.system.cache import cache_folder, kept, passing_folder
from smallcnn.system.cpu import cpu_flags, cpu_name
from smallcnn.system.files import write

_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-sanitize=undefined", "-fno-math-errno")


class Source(Structure):
    """act(scale * data + shift); this and the next two structs are described in native/rows.h."""

    _fields_ = (
        ("data", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("low", c_float),
        ("high", c_float),
        ("act", c_int32),
    )


class Gradient(Structure):
    """c0 * dz + c1 * data + c2."""

    _fields_ = (("dz", c_void_p), ("data", c_void_p), ("c0", c_void_p), ("c1", c_void_p), ("c2", c_void_p))


class Finish(Structure):
    """The last operations on a value's gradient, applied by its last reader."""

    _fields_ = (("value", Source), ("addend", c_void_p), ("mean", c_void_p), ("sums", c_void_p))


class Conv(Structure):
    """A convolution as a matrix product; see native/products.c."""

    _fields_ = (
        ("images", c_int64),
        *((name, c_int32) for name in ("height", "width", "channels", "out_height", "out_width", "out", "groups")),
        *((name, c_int32) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x", "top", "left")),
    )


class Depthwise(Structure):
    """See native/depthwise.c."""

    _fields_ = (
        ("images", c_int64),
        *((name, c_int32) for name in ("height", "width", "channels", "out_height", "out_width")),
        *((name, c_int32) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x", "top", "left")),
    )


class Pool(Structure):
    """See native/moving.c."""

    _fields_ = (*Depthwise._fields_, ("average", c_int32), ("count_padding", c_int32))


_POINTER = c_void_p
_FUNCTIONS = {
    "fast_use_openmp": (c_void_p,) * 3,
    "fast_conv": (c_int32, POINTER(Conv), POINTER(Source), *(_POINTER,) * 3),
    "fast_conv_backward": (
        *(c_int32, POINTER(Conv), POINTER(Source), POINTER(Gradient), POINTER(Finish)),
        *(_POINTER,) * 3,
    ),
    "fast_depthwise": (c_int32, POINTER(Depthwise), POINTER(Source), *(_POINTER,) * 3),
    "fast_depthwise_backward": (
        *(c_int32, POINTER(Depthwise), POINTER(Source), POINTER(Gradient), POINTER(Finish)),
        *(_POINTER,) * 3,
    ),
    "fast_total": (c_int32, c_int32, c_double, *(_POINTER,) * 2),
    "fast_norm": (c_int32, *(_POINTER,) * 5, c_double, c_double, *(_POINTER,) * 4),
    "fast_norm_backward": (c_int32, *(_POINTER,) * 5, c_int32, *(_POINTER,) * 5),
    "fast_statistics": (c_int32, c_int64, c_int32, *(_POINTER,) * 2),
    "fast_read": (c_int32, c_int64, c_int32, POINTER(Source), c_int64, _POINTER, c_int64),
    "fast_add": (c_int32, c_int64, c_int32, POINTER(Source), POINTER(Source), _POINTER),
    "fast_gradient": (c_int32, c_int64, c_int32, POINTER(Gradient), _POINTER),
    "fast_finish": (c_int32, c_int64, c_int32, _POINTER, c_int64, POINTER(Finish), _POINTER),
    "fast_shuffle": (c_int32, c_int64, c_int32, c_int32, POINTER(Source), _POINTER),
    "fast_shuffle_backward": (c_int32, c_int64, c_int32, c_int32, _POINTER, POINTER(Finish), _POINTER),
    "fast_pool": (c_int32, POINTER(Pool), POINTER(Source), _POINTER),
    "fast_pool_backward": (c_int32, POINTER(Pool), POINTER(Source), _POINTER, POINTER(Finish), _POINTER),
}  # fmt: skip


def at(tensor: Tensor | None) -> int | None:
    """Address of a tensor's data."""
    return None if tensor is None else tensor.data_ptr()


@cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if the cache has none for this processor.

    Raises CompileError without Linux, a C compiler (ziglang or the system's) or a PyTorch built on OpenMP.
    """
    if sys.platform != "linux":
        raise CompileError(f"fast training on the CPU needs Linux, not {sys.platform}")
    loaded = _loaded()
    for name, types in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = types, None
    try:
        torch.get_num_threads()
        openmp = ctypes.CDLL("libgomp.so.1")  # the one PyTorch has loaded, found by its name
        entries = [ctypes.cast(getattr(openmp, name), c_void_p) for name in _OPENMP]
    except (OSError, AttributeError) as error:
        raise CompileError(f"fast training needs a PyTorch built on GNU OpenMP: {error}") from error
    loaded.fast_use_openmp(*entries)
    return loaded


def is_compiled() -> bool:
    """Whether the cache has the kernels for this processor, so that `library` need not compile them."""
    with suppress(CompileError):
        return sys.platform == "linux" and _kernels()[0].is_file()
    return False


def _loaded() -> ctypes.CDLL:
    """The library from the cache; compiled again if that is damaged or the cache is mounted noexec."""
    path, make = _kernels()
    with suppress(OSError, WriteError):
        return ctypes.CDLL(str(kept(path, make)))
    try:
        return ctypes.CDLL(str(write(passing_folder() / path.name, make())))
    except (OSError, WriteError) as error:
        raise CompileError(f"the training kernels cannot be loaded: {error}") from error


_OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


def _kernels() -> tuple[Path, Callable[[], bytes]]:
    """The cache path of this processor's library, and a function that compiles it."""
    sources = sorted((path for path in files(__package__).joinpath("native").iterdir()), key=lambda path: path.name)
    command = _compiler()
    content = " ".join((cpu_name(), *sorted(cpu_flags()), *command, *_FLAGS)).encode() + b"".join(
        path.read_bytes() for path in sources
    )
    path = cache_folder() / "training" / f"{hashlib.sha256(content).hexdigest()[:20]}.so"
    return path, lambda: _compiled(command, sources)


def _compiled(command: Sequence[str], sources: Sequence[Traversable]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as name:
        folder = Path(name)
        for source in sources:
            (folder / source.name).write_bytes(source.read_bytes())
        written = folder / "kernels.so"
        units = [str(folder / source.name) for source in sources if source.name.endswith(".c")]
        done = subprocess.run(
            [*command, *_FLAGS, *units, "-lm", "-o", str(written)],
            env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": f"{name}/zig", "ZIG_LOCAL_CACHE_DIR": f"{name}/zig"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CompileError(f"{command[0]} could not compile the training kernels: {done.stderr.strip()[-500:]}")
        return written.read_bytes()


def _compiler() -> tuple[str, ...]:
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc")
    for name in ("clang", "gcc", "cc"):
        if path := which(name):
            return (path,)
    raise CompileError("fast training on the CPU needs a C compiler: pip install ziglang, or install clang or gcc")
