import errno
import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smallcnn.errors import FileError
from smallcnn.system import fetch as module
from smallcnn.system import lock
from smallcnn.system.fetch import fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """One file at any path, served as the test wants it; keeps the requests and counts the bytes of bodies sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"first"'
        self.breaks: list[int] = []  # each answer in turn is cut off after so many bytes
        self.answers: dict[str, int] = {}  # path: status
        self.ranges, self.says_length = True, True
        self.asked: list[str | None] = []  # the Range of each request
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights/net.bin"

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up early is meant."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, span = self.server, self.headers["Range"]
        server.asked.append(span)
        if status := server.answers.get(self.path):
            self.send_response(status)
            self.send_header("Location", "http://example.com/elsewhere")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = 0
        if span and server.ranges and self.headers["If-Range"] == server.etag:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks:
            body = body[: server.breaks.pop(0)]
        self.wfile.write(body)
        server.sent += len(body)
        return None

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "_PAUSE", 0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def test_the_whole_file_lies_under_its_address(server, tmp_path):
    heard = []
    path = fetch(server.url, cache=tmp_path, report=lambda *now: heard.append(now))
    assert path == tmp_path / f"127.0.0.1_{server.server_port}" / "weights" / "net.bin"
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ["net.bin"]
    assert heard[0] == (0, len(CONTENT))
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert heard == sorted(heard)


def test_a_second_time_nothing_is_asked(server, tmp_path):
    for hash_ in (None, SHA256, SHA256[:8]):
        fetch(server.url, cache=tmp_path, size=len(CONTENT), sha256=hash_)
    assert len(server.asked) == 1


@pytest.mark.parametrize("damage", [b"half", b"\0" * len(CONTENT)], ids=["truncated", "same size"])
def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path, damage):
    fetch(server.url, cache=tmp_path, sha256=SHA256).write_bytes(damage)
    assert fetch(server.url, cache=tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.breaks = [300_000, 200_000]
    assert fetch(server.url, cache=tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.sent == len(CONTENT), "no byte twice"


def test_the_next_call_goes_on_too(server, tmp_path):
    server.breaks = [100_000] * 5
    with pytest.raises(
        FileError, match=r"net\.bin: failed 5 times, .* broke after 500,000 of 1,048,576 bytes; .* kept$"
    ):
        fetch(server.url, cache=tmp_path)
    assert visible(tmp_path) == []
    assert fetch(server.url, cache=tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path):
    server.breaks, server.ranges = [300_000], False
    assert fetch(server.url, cache=tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert server.sent == 300_000 + len(CONTENT)


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_mark_of_its_version_a_file_is_not_continued(server, tmp_path, etag):
    server.breaks, server.etag = [300_000], etag
    assert fetch(server.url, cache=tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_file_that_changed_is_not_continued(server, tmp_path):
    server.breaks = [100_000] * 5
    with pytest.raises(FileError):
        fetch(server.url, cache=tmp_path)
    server.content, server.etag = CONTENT[::-1], '"second"'
    assert fetch(server.url, cache=tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("found", [b"\0" * 500_000, CONTENT + b"more"], ids=["zeros", "too long"])
def test_what_a_crash_left_behind_does_no_lasting_harm(server, tmp_path, found):
    server.breaks = [500_000] + [0] * 4
    with pytest.raises(FileError):
        fetch(server.url, cache=tmp_path)
    next(tmp_path.rglob(".*.partial")).write_bytes(found)
    assert fetch(server.url, cache=tmp_path, sha256=SHA256).read_bytes() == CONTENT


def test_a_server_that_does_not_say_the_length(server, tmp_path):
    server.says_length = False
    assert fetch(server.url, cache=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("known", [SHA256, SHA256[:8]])
def test_a_wrong_hash_names_both_and_leaves_nothing(server, tmp_path, known):
    server.content = CONTENT[::-1]
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(FileError, match=rf"SHA-256 is {found}, expected {known}.*it was removed$"):
        fetch(server.url, cache=tmp_path, sha256=known)
    assert visible(tmp_path) == []
    assert not list(tmp_path.rglob("*.partial"))


def test_a_wrong_size_is_noticed_before_anything_is_fetched(server, tmp_path):
    with pytest.raises(FileError, match="it has 1,048,576 bytes, expected 1,000"):
        fetch(server.url, cache=tmp_path, size=1000)
    assert visible(tmp_path) == []


def test_no_such_file(server, tmp_path):
    server.answers = {"/weights/net.bin": 404}
    with pytest.raises(FileError, match=r"net\.bin: the server answered 404 Not Found$"):
        fetch(server.url, cache=tmp_path)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.answers = {"/weights/net.bin": 503}
    with pytest.raises(FileError, match="failed 5 times, the last time because the server answered 503"):
        fetch(server.url, cache=tmp_path)
    assert len(server.asked) == 5


def test_no_redirect_leaves_https(server, tmp_path):
    server.answers = {"/weights/net.bin": 302}
    with pytest.raises(FileError, match=r"^http://example\.com/elsewhere: only files at https:// addresses"):
        fetch(server.url, cache=tmp_path)


def test_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net.bin"
        with pytest.raises(FileError) as caught:
            fetch(url, cache=tmp_path)
    place = tmp_path / url.removeprefix("http://").replace(":", "_")
    assert str(caught.value) == (
        f"no connection to 127.0.0.1: {os.strerror(errno.ECONNREFUSED)}; "
        f"if you can get {url} elsewhere, put it at {place} and try again"
    )


@pytest.mark.parametrize(
    "url",
    ["http://example.com/a", "ftp://127.0.0.1/a", "file:///etc/passwd", "net.bin", "https:///a", "https://[/a",
     "https://example.com/a b", "https://example.com/a\nb", "https://example.com/ä"],
)  # fmt: skip
def test_only_https_is_fetched(tmp_path, url):
    with pytest.raises(FileError, match="only files at https:// addresses"):
        fetch(url, cache=tmp_path)


def test_a_file_known_by_its_hash_may_come_over_http(server, tmp_path):
    url = server.url.replace("127.0.0.1", "127.0.0.2")  # no address of this machine by name
    with pytest.raises(FileError, match="only files at https:// addresses"):
        fetch(url, cache=tmp_path, sha256=SHA256[:32])
    with pytest.raises(FileError, match=r"^no connection to 127\.0\.0\.2"):
        fetch(url, cache=tmp_path, sha256=SHA256)


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com/a/", "https://example.com/a/.."])
def test_a_folder_is_no_file(tmp_path, url):
    with pytest.raises(FileError, match="the address of a folder"):
        fetch(url, cache=tmp_path)


def test_an_address_never_leads_out_of_the_cache(server, tmp_path):
    url = server.url.replace("weights/net.bin", "../../%2e%2e/.ssh/a:b?x=../y")
    path = fetch(url, cache=tmp_path / "cache")
    assert path.is_relative_to(tmp_path / "cache")
    assert ".." not in path.parts
    assert path.name == "a_b"
    assert fetch(url.replace("/y", "/z"), cache=tmp_path / "cache") != path, "another file"


@pytest.mark.parametrize("hash_", ["", "abc", "zz" * 8, SHA256.upper(), SHA256 + "0"])
def test_a_hash_that_is_none(tmp_path, hash_):
    with pytest.raises(FileError, match="a SHA-256 is 64 hexadecimal digits"):
        fetch("https://example.com/net.bin", cache=tmp_path, sha256=hash_)


def tgz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_one_member_of_an_archive(server, tmp_path):
    server.content = tgz({"./net.pb": b"graph", "../../net.tflite": b"weights", "net.ckpt": b"more"})
    for _ in range(2):
        path = fetch(server.url, cache=tmp_path, member="net.tflite")
        assert path.read_bytes() == b"weights"
        assert visible(tmp_path) == ["net.bin", "net.tflite"], "nothing else comes out, and nowhere else"
        path.write_bytes(b"damaged")
    assert path.parent.name == "weights"
    assert len(server.asked) == 1
    with pytest.raises(FileError, match=r"net\.bin has no file other\.tflite$"):
        fetch(server.url, cache=tmp_path, member="other.tflite")


@pytest.mark.parametrize("content", [b"no archive", None], ids=["no archive", "cut off"])
def test_a_damaged_archive_does_not_stay(server, tmp_path, content):
    whole = tgz({"net.tflite": os.urandom(10_000)})
    server.content = content or whole[:5000]
    with pytest.raises(FileError, match="damaged archive and was removed"):
        fetch(server.url, cache=tmp_path, member="net.tflite")
    server.content = whole
    assert fetch(server.url, cache=tmp_path, member="net.tflite").stat().st_size == 10_000


def test_many_at_once_fetch_it_once(server, tmp_path):
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(server.url, cache=tmp_path, sha256=SHA256).read_bytes()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [CONTENT] * 8
    assert server.sent == len(CONTENT)


def test_another_process_is_waited_for(server, tmp_path):
    """The lock holds between processes, and a killed one holds it no longer."""
    place = tmp_path / f"127.0.0.1_{server.server_port}" / "weights" / "net.bin"
    place.parent.mkdir(parents=True)
    locked, (read, write) = threading.Event(), os.pipe()
    if (child := os.fork()) == 0:
        with lock.held(place.with_name(".net.bin.lock"), wait=True):
            os.write(write, b"!")
            threading.Event().wait(60)
            os._exit(1)
    os.read(read, 1)
    other = threading.Thread(target=lambda: (fetch(server.url, cache=tmp_path), locked.set()))
    other.start()
    assert not locked.wait(0.2)
    assert server.asked == []
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert locked.wait(10)
    other.join(60)


def test_a_full_disk_is_one_line(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # everywhere, so that no other place can take the file
    with pytest.raises(FileError, match=r"^cannot write .*net\.bin: No space left on device$"):
        fetch(server.url, cache=tmp_path)
