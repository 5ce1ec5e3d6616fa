"""A cache that cannot be used costs one line and some time, and never the work."""

import ctypes
import inspect
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from test_fetch import CONTENT, server  # noqa: F401  (a fixture)

from artifacts import artifact
from networks import tiny
from smallcnn.data.sources import open_source
from smallcnn.model.store import save
from smallcnn.system import cache
from smallcnn.system.fetch import fetch


def a_file(tmp_path):
    (tmp_path / "cache").touch()
    return tmp_path / "cache"


def inside_a_file(tmp_path):
    return a_file(tmp_path) / "deep" / "smallcnn"


def where_nothing_can_be_made(tmp_path):
    return Path("/proc/smallcnn")


def full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "smallcnn", disk], check=False, timeout=60).returncode:
        pytest.skip("may not mount a small disk here")
    (disk / "filler").write_bytes(bytes(60 << 10))
    return disk / "cache"


def read_only(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "smallcnn", disk], check=False, timeout=60).returncode:
        pytest.skip("may not mount a small disk here")
    return disk / "cache"


@pytest.fixture(params=[a_file, inside_a_file, where_nothing_can_be_made, full, read_only])
def bad_cache(request, tmp_path, monkeypatch):
    place = request.param(tmp_path)
    monkeypatch.setenv("SMALLCNN_CACHE", str(place))
    monkeypatch.setattr(cache, "_noted", [])
    yield place
    if (disk := tmp_path / "disk").is_dir():
        subprocess.run(["umount", disk], check=True, timeout=60)


def noted_once(capfd):
    err = capfd.readouterr().err
    assert err.count("continuing without the cache") == 1, err
    assert "Traceback" not in err


def test_downloads(bad_cache, server, capfd):  # noqa: F811
    assert fetch(server.url).read_bytes() == CONTENT
    assert fetch(server.url).read_bytes() == CONTENT
    noted_once(capfd)


def test_a_member_of_a_downloaded_archive(bad_cache, server, capfd):  # noqa: F811
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("net.tflite")
        member.size = len(CONTENT)
        tar.addfile(member, io.BytesIO(CONTENT))
    server.content = packed.getvalue()
    assert fetch(server.url, member="net.tflite").read_bytes() == CONTENT
    noted_once(capfd)


def test_shards_from_elsewhere_and_their_index(bad_cache, tmp_path, capfd):
    shard = tmp_path / "x-000.tar"
    with tarfile.open(shard, "w") as tar:
        for number in range(4):
            for suffix, content in ((".png", _png(number)), (".cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    source = open_source(f"pipe:cat {tmp_path}/x-{{000..000}}.tar")
    assert [len(source.splits[name]) for name in ("train", "val")] == [2, 2]
    assert all(image.read() for split in source.splits.values() for image in split.images)
    noted_once(capfd)


def _png(value):
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(written, "PNG")
    return written.getvalue() + bytes(20_000)  # more than the full disk has room for


@pytest.mark.parametrize("bad_cache", [a_file, full], indirect=True)
def test_compiling_and_timing(bad_cache, smallcnn, tmp_path, monkeypatch):
    pytest.importorskip("halide")
    save(artifact(tiny()), tmp_path / "net.safetensors")
    code, _, err = smallcnn("compile", tmp_path / "net.safetensors", "--out", tmp_path / "net.so", "--tune")
    assert code == 0, err
    assert err.count("continuing without the cache") == 1
    monkeypatch.setattr(cache, "_noted", [])
    code, _, err = smallcnn("bench", tmp_path / "net.so", "--seconds", "0.1", "--by-layer")
    assert code == 0, err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def kernel_library():
    """The bytes of the training kernels, which take ten seconds to compile."""
    native = pytest.importorskip("smallcnn.train.fast.native")
    return Path(native._loaded()._name).read_bytes()


@pytest.fixture
def load_kernels(kernel_library, monkeypatch):
    """Loads the training kernels as a new process would, except that what it compiles is at hand."""
    from smallcnn.train.fast import native
    from smallcnn.train.fast.native import library

    monkeypatch.setattr(native, "_compiled", lambda command, sources: kernel_library)
    return inspect.unwrap(library)


@pytest.mark.parametrize("bad_cache", [a_file, full], indirect=True)
def test_training_kernels(load_kernels, bad_cache, capfd):
    assert isinstance(load_kernels(), ctypes.CDLL)
    noted_once(capfd)


def test_a_damaged_kernel_library_is_made_anew(load_kernels, kernel_library, tmp_path, monkeypatch):
    from smallcnn.train.fast import native

    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path))
    path, _ = native._kernels()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF, but no more")
    assert Path(load_kernels()._name).read_bytes() == kernel_library


def test_what_is_kept_is_found_again(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(1)
        return b"content"

    for _ in range(2):
        assert cache.kept(tmp_path / "deep" / "file", make) == tmp_path / "deep" / "file"
    assert (tmp_path / "deep" / "file").read_bytes() == b"content"
    assert len(made) == 1


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("SMALLCNN_CACHE", "~/given")
    assert cache.cache_folder() == Path("/home/me/given")
    monkeypatch.delenv("SMALLCNN_CACHE")
    assert cache.cache_folder() == Path("/xdg/smallcnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.cache_folder() == Path("/home/me/.cache/smallcnn")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache.cache_folder() == Path("/home/me/Library/Caches/smallcnn")


def test_peak_is_measured_though_the_cache_holds_a_damaged_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("halide")
    from smallcnn.bench import peak

    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path))
    peak.meter(1)
    (program,) = (tmp_path / "peak").iterdir()
    program.write_bytes(b"damaged")
    peak.meter(1)
