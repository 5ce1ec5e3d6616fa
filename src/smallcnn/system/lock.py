"""File locks held by one process at a time. The system releases a lock when its process ends, however it ends."""

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from smallcnn.errors import DataError, FileError

RUN = ".lock"
"""Name of the lock file in a run's folder."""

_PATIENCE = 2.0  # seconds, in which a process that is just ending releases the lock
_ASKING = 0.05
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of some network file systems

if sys.platform == "win32":
    import msvcrt

    _BEHIND = 1 << 30  # a byte beyond the content, so that others can read the content

    def _lock(file: IO[str], wait: bool) -> None:
        """Until the file is closed. Raises BlockingIOError if another holds it."""
        while True:
            try:
                os.lseek(file.fileno(), _BEHIND, os.SEEK_SET)
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError as error:  # LK_LOCK waits ten seconds only
                if error.errno not in (errno.EDEADLK, errno.EACCES):
                    raise
                if not wait:
                    raise BlockingIOError from error
else:
    import fcntl

    def _lock(file: IO[str], wait: bool) -> None:
        """Until the file is closed. Raises BlockingIOError if another holds it."""
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[IO[str]]:
    """Holds the lock file at `path`, made if missing, for this process alone; others can read what is written to it.

    Raises BlockingIOError if another process holds it, unless `wait` is true; OSError if the file cannot be opened.
    """
    with _opened(path) as file:
        _lock(file, wait)
        yield file


def _opened(path: Path) -> IO[str]:
    """Opens the file, never through a link: the folder may be untrusted, and the file is written to."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
    return os.fdopen(number, "a+", encoding="utf-8")


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Locks `folder` against other runs, makes it if missing, and removes the lock file afterwards.

    Raises DataError, which names the holder, if another run uses it; FileError if the folder cannot be written.
    """
    path, made = folder / RUN, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _taken(path)
    except OSError as error:
        raise FileError(f"cannot write into the run folder {folder}: {error.strerror or error}") from error
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows cannot remove an open file; a lock file nobody holds is harmless
                path.unlink()
            if made:
                with suppress(OSError):  # empty if the run was refused
                    folder.rmdir()


def _taken(path: Path) -> IO[str]:
    """The lock file, held. Raises DataError if another process holds it."""
    until = time.monotonic() + _PATIENCE
    while True:
        file = _opened(path)
        try:
            _lock(file, wait=False)
            if _is_at(path, file):
                return file  # otherwise the last holder has just removed it
        except BlockingIOError:
            if time.monotonic() > until:
                holder = _holder(file)
                file.close()
                raise DataError(
                    f"{path.parent}: in use by {holder}; wait until it is done, stop it, or use another folder"
                ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                file.close()
                raise
            print(f"note: files cannot be locked in {path.parent}; start no other run in it", file=sys.stderr)
            return file
        file.close()
        time.sleep(_ASKING)


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: IO[str]) -> str:
    with suppress(OSError, ValueError):
        file.seek(0)
        if (found := file.read(200)) and found.isprintable():
            return found
    return "another process"
