import faulthandler
import os
import sys
from importlib.util import find_spec

import pytest
from hypothesis import settings

import machine
from imagenet_images import imagenet_images  # noqa: F401
from smallcnn.cli.main import main
from smallcnn.compiler import calibrate, targets
from smallcnn.compiler.machines import packaged

# The networks here are tiny: on a busy machine a second OpenMP thread made some of them 1000 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("smallcnn", deadline=None)  # a first call may import torch or find the machine busy
settings.load_profile("smallcnn")


LONG_TEST = 3600
"""Seconds that a test marked `long` may take; `timeout` in pyproject.toml is for the others."""
AFTERWARDS = 30
"""Seconds after its timeout in which a test must have failed. One that holds the interpreter's lock cannot."""


def pytest_addoption(parser):
    parser.addoption("--precision", choices=machine.PRECISIONS, help="what `auto` trains in, whatever the processor")
    parser.addoption("--level", choices=machine.LEVELS, help="the newest vector instructions to use, of x86-64")
    parser.addoption("--kills", type=int, default=20, help="processes to kill in each test of test_lost_process.py")


def pytest_configure(config):
    try:
        machine.choose(config.getoption("--precision"), config.getoption("--level"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    machine.follow()


def pytest_report_header():
    return machine.description()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_TEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Ends the process, with the stacks of all threads on stderr, if pytest-timeout could not end the test."""
    own = item.get_closest_marker("timeout")
    limit = own.args[0] if own else float(item.config.getoption("timeout") or item.config.getini("timeout"))
    faulthandler.dump_traceback_later(limit + AFTERWARDS, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache of compiled kernels for all processes that run tests, made anew unless the environment names one.

    Plans follow the packaged models, as if this processor had been measured so: measuring takes seconds, and a new one
    may find other figures. A cache that the environment names keeps its own measurements.
    """
    own = "SMALLCNN_CACHE" not in os.environ
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ.setdefault("SMALLCNN_CACHE", str(folder / "cache"))
    if find_spec("halide"):
        for target in map(targets.parse, targets.names()):
            (calibrate.remember if own else calibrate.assume)(target, packaged(target))


@pytest.fixture
def smallcnn(capsys):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def call(*args):
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def refused(smallcnn):
    """Runs a command that must fail with exit code 2 and one line; returns the line."""

    def call(*args):
        code, out, err = smallcnn(*args)
        assert (code, out) == (2, ""), (code, out, err)
        (line,) = err.splitlines()
        assert line.startswith("smallcnn: ")
        return line.removeprefix("smallcnn: ")

    return call
