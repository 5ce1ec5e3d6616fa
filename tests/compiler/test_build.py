"""Kernels compiled by worker processes and kept in a cache."""

import ast
from pathlib import Path

import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

from smallcnn.compiler import build, targets
from smallcnn.compiler.specs import Elementwise, Lanes, Sink
from smallcnn.errors import CompileError

COMPILER = Path(build.__file__).parent
WITHOUT_CODE = {"__init__.py", "program.py", "symbols.py"}
"""Files that `build` imports, whose contents no kernel depends on: what links programs."""


def elementwise(kind):
    return Lanes(8, False, Sink(8, 8, (Elementwise(kind),)))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path))


def imported(path):
    """The files of the compiler that a file imports, itself or through others."""
    found, waiting = set(), [path]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smallcnn.compiler"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                for name in names:
                    place = COMPILER.joinpath(*name.split(".")[2:])
                    waiting += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found


def test_the_version_changes_with_every_file_that_code_depends_on():
    """Else kernels of a former version are taken from the cache, with weights packed for the new one."""
    needed = {path for path in imported(COMPILER / "build.py") if path.name not in WITHOUT_CODE}
    assert COMPILER / "winograd.py" in needed
    assert needed <= {*build.sources(), COMPILER / "kernels" / "__init__.py"}


def test_messages_of_a_worker_do_not_stop_it(monkeypatch):
    monkeypatch.setenv("HL_DEBUG_CODEGEN", "2")  # hundreds of kilobytes
    assert build.build([elementwise("sigmoid")], targets.parse("host").machine, 1).objects


def test_a_worker_that_dies_is_one_error_with_its_last_words():
    with pytest.raises(CompileError, match=r"a kernel \(Lanes\) could not be compiled: .*no epilogue nothing"):
        build.build([elementwise("nothing")], targets.parse("host").machine, 1)
