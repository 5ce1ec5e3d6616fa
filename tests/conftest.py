import os

import pytest
from hypothesis import settings

from smallcnn.cli.main import main

# The networks here are tiny: on a busy machine a second OpenMP thread made some of them 1000 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("smallcnn", deadline=None)  # a first call may import torch or find the machine busy
settings.load_profile("smallcnn")


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
