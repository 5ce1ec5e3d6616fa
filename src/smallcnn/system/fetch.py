"""Downloads of public files: each is fetched once and verified, and an interrupted download resumes.

The cache stores a file under its address: HOST/PATH/NAME. Next to it there may be `.NAME.partial`, the part received so
far, and `.NAME.lock`, which excludes other processes and holds the ETag of the version being fetched.
"""

import hashlib
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from smallcnn._version import __version__
from smallcnn.errors import FileError, WriteError
from smallcnn.system import lock
from smallcnn.system.cache import cache_folder, in_cache
from smallcnn.system.files import write

Report = Callable[[int, int | None], None]
"""Called with the bytes received and the total, None if the server does not say."""

_TIMEOUT = 30.0  # seconds without a byte
_TRIES = 5
_PAUSE = 1.0  # seconds before the second try, then twice as long each time
_CHUNK = 1 << 18
_AGAIN = 408, 416, 429  # status codes worth a retry, as are all 5xx
_LOCAL = "127.0.0.1", "localhost", "::1"


def fetch(
    url: str,
    *,
    member: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
    cache: Path | None = None,
    report: Report = lambda done, total: None,
) -> Path:
    """Returns the path of the file at `url`, downloading it unless it is cached.

    `size` in bytes and `sha256` (at least its first 8 digits) are verified before the file is used, even if it is
    cached. The address must be https, or http if the whole SHA-256 is known. With `member`, the file is a tar archive,
    and the path is that of the member with this file name.

    If the cache cannot be written, the file lasts as long as the process.

    Raises FileError if the file cannot be fetched, is not the expected one, or cannot be written anywhere.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise FileError(f"a SHA-256 is 64 hexadecimal digits in lower case, or the first 8 or more, not {sha256!r}")
    return in_cache(cache or cache_folder(), lambda folder: _fetched(url, folder, member, size, sha256, report))


def _fetched(url: str, folder: Path, member: str | None, size: int | None, sha256: str | None, report: Report) -> Path:
    """The path of the file in `folder`. Raises WriteError if it cannot be written there."""
    place = _place(url, folder, pinned=sha256 is not None and len(sha256) == 64)
    try:
        if not _is_good(place, size, sha256):
            place.parent.mkdir(parents=True, exist_ok=True)
            with lock.held(place.with_name(f".{place.name}.lock"), wait=True) as mark:
                if not _is_good(place, size, sha256):
                    _download(url, place, mark, size, sha256, report)
        return _extract(place, member) if member else place
    except URLError as error:
        flaw = _flaw(place, size, sha256) if place.is_file() else None
        reason = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise FileError(
            f"no connection to {urlsplit(url).hostname}: {reason or error.reason}; "
            f"if you can get {url} elsewhere, put it at {place} and try again"
            + (f" (the file there: {flaw})" if flaw else "")
        ) from error
    except OSError as error:
        raise WriteError(f"cannot write {place}: {error.strerror or error}") from error


def _place(url: str, cache: Path, pinned: bool) -> Path:
    """The cache path of the file at an address."""
    parts = _checked(url, pinned)
    *folders, name = parts.path.split("/")
    if not name.strip("."):
        raise FileError(f"{url}: the address of a folder; give the address of a file")
    words = [parts.netloc.rpartition("@")[2], *folders, parts.query, name]
    return cache.joinpath(*(re.sub(r"[^\w.=+-]", "_", word).lstrip(".") for word in words))


def _checked(url: str, pinned: bool) -> SplitResult:
    """The parts of an address; FileError unless it is https, or http to this machine or for a file known by hash."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme == "https" or (parts.scheme == "http" and (pinned or parts.hostname in _LOCAL))
        if allowed and parts.hostname and re.fullmatch("[!-~]+", url):
            return parts
    except ValueError:
        pass
    raise FileError(f"{url}: only files at https:// addresses can be fetched")


def _is_good(path: Path, size: int | None, sha256: str | None) -> bool:
    return path.is_file() and not _flaw(path, size, sha256)


def _flaw(path: Path, size: int | None, sha256: str | None) -> str | None:
    """What is wrong with a file, judged by its known size and hash; None if nothing."""
    if size is not None and (found := path.stat().st_size) != size:
        return f"it has {found:,} bytes, expected {size:,}"
    if sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(sha256):
            return f"its SHA-256 is {digest}, expected {sha256}{'...' if len(sha256) < len(digest) else ''}"
    return None


class _BrokenError(Exception):
    """A download that stopped for a possibly temporary reason."""


def _download(url: str, place: Path, mark: IO[str], size: int | None, sha256: str | None, report: Report) -> None:
    """Downloads the file at an address to `place`."""
    partial = place.with_name(f".{place.name}.partial")
    last = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            resumed = _receive(url, partial, mark, size, report)
        except _BrokenError as error:
            last = str(error)
            continue
        if not (flaw := _flaw(partial, size, sha256)):
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(place)
            return
        partial.unlink()
        if not resumed:
            raise FileError(f"{url} is not the expected file: {flaw}; it was removed")
        last = flaw
    raise FileError(f"{url}: failed {_TRIES} times, the last time because {last}; the part received is kept")


def _receive(url: str, partial: Path, mark: IO[str], size: int | None, report: Report) -> bool:
    """Completes `partial`, or rewrites it if the file has changed. Returns whether the download was resumed."""
    done = partial.stat().st_size if partial.exists() else 0
    mark.seek(0)
    headers = {"User-Agent": f"smallcnn/{__version__}"}
    if done and (version := mark.read()):
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    with _open(url, headers, partial) as response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            partial.unlink()
            raise _BrokenError("the server sent the wrong range of bytes")
        if not resumed:
            done = 0
            _remember(mark, response.headers)
        total = size if response.length is None else done + response.length
        if size is not None and total != size:
            raise FileError(f"{url} is not the expected file: it has {total:,} bytes, expected {size:,}")
        with partial.open("ab" if resumed else "wb") as file:
            report(done, total)
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                if size is not None and done > size:
                    raise FileError(f"{url} is not the expected file: it has more than {size:,} bytes")
                report(done, total)
    if total is not None and done < total:
        raise _BrokenError(f"the connection broke after {done:,} of {total:,} bytes")
    return resumed


def _remember(mark: IO[str], headers: HTTPMessage) -> None:
    """Stores an identifier of this version of the file, if the server gives one."""
    tag = headers.get("ETag", "W/")
    mark.seek(0)
    mark.truncate()
    mark.write(headers.get("Last-Modified", "") if tag.startswith("W/") else tag)
    mark.flush()


class _SafeRedirect(HTTPRedirectHandler):
    """A redirect handler that refuses redirects away from https."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _checked(newurl, pinned=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str], partial: Path) -> HTTPResponse:
    """The response to a request; URLError if there is no connection."""
    try:
        response: HTTPResponse = build_opener(_SafeRedirect).open(Request(url, headers=headers), timeout=_TIMEOUT)
        return response
    except HTTPError as error:
        error.close()
        if error.code == 416:  # nothing left to send: the partial file is not part of this file
            partial.unlink()
        if error.code in _AGAIN or error.code >= 500:
            raise _BrokenError(f"the server answered {error.code} {error.reason}") from error
        raise FileError(f"{url}: the server answered {error.code} {error.reason}") from error
    except URLError:
        raise
    except (OSError, HTTPException) as error:
        raise _BrokenError(f"the connection broke ({error or type(error).__name__})") from error


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _BrokenError(f"the connection broke ({error or type(error).__name__})") from error


def _extract(archive: Path, member: str) -> Path:
    """Extracts the file named `member` next to the tar archive; paths in the archive are ignored."""
    try:
        with tarfile.open(archive) as tar:
            found = next((info for info in tar if info.isfile() and PurePosixPath(info.name).name == member), None)
            source = tar.extractfile(found) if found else None
            content = source.read() if source else None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        archive.unlink(missing_ok=True)
        raise FileError(f"{archive} was a damaged archive and was removed: {error}") from error
    if content is None:
        raise FileError(f"{archive} has no file {member}")
    return in_cache(archive.parent, lambda folder: write(folder / member, content))
