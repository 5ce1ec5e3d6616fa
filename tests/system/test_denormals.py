"""Denormal numbers taken for zero, as numpy's arithmetic shows."""

import platform
import sys
import threading

import numpy as np
import pytest

from smallcnn.system.denormals import flushed

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"), reason="no such setting here"
)
DENORMAL, LEAST = np.full(64, 1e-40, np.float32), np.full(64, np.finfo(np.float32).tiny)


def kept():
    """Whether this thread computes with denormal numbers, as inputs and as results."""
    answers = {bool((DENORMAL + DENORMAL).any()), bool((LEAST * np.float32(0.5)).any())}
    assert len(answers) == 1
    return answers.pop()


def test_only_meanwhile():
    assert kept()
    with flushed():
        assert not kept()
        with flushed():
            assert not kept()
        assert not kept()
        np.testing.assert_array_equal(LEAST + LEAST, np.float32(2**-125))
    assert kept()


def test_after_an_error():
    with pytest.raises(KeyError), flushed():
        raise KeyError
    assert kept()


def test_only_on_this_thread():
    inside, answered, answers = threading.Event(), threading.Event(), []

    def other():
        assert inside.wait(60)
        answers.append(kept())
        answered.set()

    thread = threading.Thread(target=other)
    thread.start()
    with flushed():
        inside.set()
        assert answered.wait(60)
    thread.join(60)
    assert answers == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="sets the calling thread only")
def test_on_the_threads_that_it_is_told():
    called = []

    def on_threads(function, argument):
        called.append(function(argument))

    with flushed(on_threads):
        assert not kept()
    assert kept()
    assert called == [0, 0]  # C's fesetenv succeeds with 0
