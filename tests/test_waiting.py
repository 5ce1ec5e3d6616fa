"""No test waits for ever: whatever it waits for is given a number of seconds."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def unbounded(source):
    """Lines that run a program, or wait for a process, a thread or an event, for as long as it takes."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        match call.func:
            case ast.Attribute(value=ast.Name(id="subprocess"), attr="run" | "check_output" | "check_call" | "call"):
                if "timeout" not in {keyword.arg for keyword in call.keywords}:
                    yield call.lineno
            case ast.Attribute(attr="join" | "wait" | "communicate"):
                if not call.args and not call.keywords:
                    yield call.lineno


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: file.name)
def test_every_wait_has_an_end(file):
    assert list(unbounded(file.read_text(encoding="utf-8"))) == []


def test_what_would_be_found():
    source = "subprocess.run(a, timeout=1)\nsubprocess.run(a)\nthread.join()\nthread.join(1)\n', '.join(a)\nx.wait()\n"
    assert list(unbounded(source)) == [2, 3, 6]
