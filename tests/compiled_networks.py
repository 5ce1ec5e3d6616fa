"""A graph compiled and run under hard conditions, next to the float64 definition."""

import ctypes
import mmap
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from artifacts import artifact
from smallcnn.compiler import link, targets
from smallcnn.compiler.compiling import to_program
from smallcnn.engines import compiled
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.model.model import Model
from smallcnn.reference import floating as reference

TOLERANCE = 1e-5
"""Of the largest value: what is promised for every network. Sums of a few thousand float32 terms are 1e-6 off."""
THREADS = (1, 2, 3)
_SECONDS = 100  # for a child to answer, and again to end


def end(g: Builder, *results: Node) -> tuple[Graph, dict[str, int]]:
    """The network whose answer is all pixels of these results side by side, and the length of each."""
    flat = [x if len(x.shape) == 1 else g.flatten(x) for x in results]
    output = g.concat(*flat) if len(flat) > 1 else flat[0]
    parts = {x.name: vector.shape[0] for x, vector in zip(results, flat, strict=True)}
    return g.graph(output, features=output, name="drawn"), parts


def noise(graph: Graph, count: int = 2, seed: int = 1) -> np.ndarray:
    """Noise; uint8 (N, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input_shape), np.uint8)


def wanted(model: Model, images: np.ndarray) -> np.ndarray:
    """The plain definition, float64."""
    return reference.answer(model.graph, model.weights, model.preprocessing.normalise(images))


def check(
    graph: Graph,
    parts: Mapping[str, int] | None = None,
    *,
    target: str = "host",
    images: np.ndarray | None = None,
    planned_for: int = 2,
    tune: bool = False,
) -> None:
    """Fails unless the compiled graph is right on any number of threads and in memory that holds anything.

    `parts` are names and lengths of what the output is joined from; each is compared on its own scale. `planned_for` is
    the number of threads that the plan has work for.
    """
    model = artifact(graph)
    images = noise(graph) if images is None else images
    want = wanted(model, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{targets.host().suffixes[0]}"
        options = {"threads": planned_for, "tune": tune, "workers": 1}
        link.write(to_program(model, targets.parse(target), want[0], **options)[0], path)
        got = in_child(_run, path, images, want.shape[1])
    for how, logits in got.items():
        start = 0
        for part, length in (parts or {"output": want.shape[1]}).items():
            ours, theirs = (values[:, start : start + length] for values in (logits, want))
            start += length
            error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 0.1)
            assert error < TOLERANCE, f"{part}, {how}: relative error {error:.1e}"
    first, *others = got.items()
    for how, logits in others:
        assert np.array_equal(first[1], logits), f"{how} differs from {first[0]} by {np.abs(first[1] - logits).max()}"


def _run(path: Path, images: np.ndarray, outputs: int) -> dict[str, np.ndarray]:
    """Logits by the way in which they were computed."""
    got = {"memory of NaN": run_guarded(path, images, outputs)}
    for threads in THREADS:
        net = compiled.load(path, threads)
        got[f"{threads} threads"] = net.run(images)
        got[f"{threads} threads again"] = net.run(images[::-1].copy())[::-1]  # on what another image left in memory
    return got


def run_guarded(path: Path, images: np.ndarray, outputs: int) -> np.ndarray:
    """Logits from the C interface: everything the network is given ends where the memory ends, and all of it is NaN."""
    library = ctypes.CDLL(str(path))
    library.smallcnn_memory.restype = ctypes.c_size_t
    size = library.smallcnn_memory(1)
    net, logits = ctypes.c_void_p(), np.empty((len(images), outputs), np.float32)
    memory, answer, picture = Guarded(size), Guarded(4 * outputs), Guarded(images[0].size)
    # one byte further, so that the network's memory, which starts on a multiple of 128, ends with the page
    error = library.smallcnn_create_in(ctypes.c_void_p(memory.address + 1), ctypes.c_size_t(size), ctypes.byref(net))
    assert not error, error
    for image, row in zip(images, logits, strict=True):
        picture.write(image.tobytes())
        error = library.smallcnn_run(net, ctypes.c_void_p(picture.address), ctypes.c_void_p(answer.address))
        assert not error, error
        row[:] = np.frombuffer(answer.read(), np.float32)
    return logits


class Guarded:
    """`size` bytes, each 0xFF: any float among them is NaN. Touching the pages around them is fatal."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        inside = -(-size // page) * page
        self.size = size
        self._map = mmap.mmap(-1, inside + 2 * page)
        self._map.write(b"\xff" * (inside + 2 * page))
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for edge in (start, start + page + inside):
            assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0)
        self._offset = page + inside - size
        self.address = start + self._offset

    def write(self, content: bytes) -> None:
        self._map[self._offset : self._offset + self.size] = content

    def read(self) -> bytes:
        return self._map[self._offset : self._offset + self.size]


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns, run in a forked process: if it crashes, one test fails instead of all."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work() -> None:
        try:
            theirs.send((function(*arguments), None))
        except BaseException:
            theirs.send((None, traceback.format_exc()))

    child = context.Process(target=work)
    child.start()
    theirs.close()
    result, error = None, None
    with suppress(EOFError):
        if ours.poll(_SECONDS):
            result, error = ours.recv()
    child.join(_SECONDS)
    child.kill()  # no more than a word to one that has ended
    child.join(_SECONDS)
    assert child.exitcode == 0, f"ended by signal {-child.exitcode}"
    assert not error, error
    return result
