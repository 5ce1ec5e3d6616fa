"""Reads a whole HDF5 file once in a separate process: python -m smallcnn.keras.survey FILE LIMIT

On a damaged file the HDF5 library may loop forever or crash, which the same process cannot stop. So an untrusted file
is read here first; the same accesses are safe afterwards. FILE is a path, or "-" for a file on standard input; LIMIT is
the maximum size of its tensors in bytes.
"""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from smallcnn.errors import FileError

_SECONDS = 10
_BYTES_A_SECOND = 2**22
"""Far below any machine's reading speed."""
_COMPUTING_SECONDS = 3
"""Processor time, ten times that of a sound file; a loop ends after it on a busy machine too."""
_MOST_OBJECTS = 100_000
_MEMORY = 2**32


def survey(content: Any, size: int, limit: int) -> None:
    """Raises FileError unless the file, a path or an `io.BytesIO`, can be read to its end in a reasonable time."""
    stored = isinstance(content, io.BytesIO)
    command = [sys.executable, "-m", "smallcnn.keras.survey", "-" if stored else str(content), str(limit)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            command, input=content.getvalue() if stored else b"", env=environment, capture_output=True,
            timeout=_SECONDS + size / _BYTES_A_SECOND, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FileError("damaged: reading its HDF5 does not finish") from None
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise FileError("damaged: reading its HDF5 does not finish")
    if done.returncode < 0:
        raise FileError("damaged: its HDF5 crashes the HDF5 library")


def _walk(file: Any, limit: int) -> None:
    """Reads everything; errors raised here will be raised again where they are reported."""
    import h5py

    waiting: list[Any] = [file]
    seen: set[Any] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        it = waiting.pop()
        try:
            if it.id in seen:
                continue
            seen.add(it.id)
            list(it.attrs.items())
            if isinstance(it, h5py.Group):
                links = [(name, it.get(name, getlink=True)) for name in it]
                waiting += [it[name] for name, link in links if isinstance(link, h5py.HardLink)]
            elif isinstance(it, h5py.Dataset) and not it.external and not it.is_virtual and it.nbytes <= limit:
                limit -= it.nbytes
                it[()]
        except Exception:  # noqa: S112, BLE001, RUF100  (the library's parsers raise many kinds)
            continue


def _main(path: str, limit: int) -> None:
    import h5py

    content = sys.stdin.buffer.read() if path == "-" else b""
    size = len(content) if path == "-" else Path(path).stat().st_size
    seconds = _COMPUTING_SECONDS + size // _BYTES_A_SECOND
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY + limit, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    except (ImportError, ValueError, OSError):
        pass  # not available on this system
    try:
        file = h5py.File(io.BytesIO(content) if path == "-" else path, "r")
    except Exception:  # noqa: BLE001, RUF100
        return
    _walk(file, limit)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
