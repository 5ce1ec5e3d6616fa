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

from networks import random_weights
from smallcnn.compiler import link, targets
from smallcnn.compiler.compiling import Compiled, to_program
from smallcnn.engines import compiled
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.types import Tensor
from smallcnn.model.model import Model
from smallcnn.reference import floating, integer

TOLERANCE = 1e-5
"""Of the largest value: what is promised for every network. Sums of a few thousand float32 terms are 1e-6 off."""
THREADS = (1, 2, 3)
Outputs = Mapping[str, np.ndarray]
_SECONDS = 100  # for a child to answer, and again to end


class AnyTask:
    """A task that any network can do."""

    kind = "any"
    labels = ()

    def check(self, graph: Graph) -> None:
        """Nothing to check."""

    def to_json(self) -> dict[str, Any]:
        """No fields."""
        return {}


def model_of(graph: Graph) -> Model:
    """A network with random weights and ImageNet's normalisation."""
    height, width, channels = graph.input_shape
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    return Model(graph, random_weights(graph), AnyTask(), Preprocessing((height, width), mean, std))


def compiled_for(target: str, network: Graph | Model, **options: Any) -> Compiled:
    """The network as a program, without an answer to the probe image."""
    model = network if isinstance(network, Model) else model_of(network)
    expected = {name: np.zeros(tensor.shape) for name, tensor in model.graph.results.items()}
    return to_program(model, targets.parse(target), expected, workers=1, **options)


def end(g: Builder, *results: Node) -> tuple[Graph, dict[str, int]]:
    """The network whose answer is all pixels of these results side by side, and the length of each."""
    flat = [x if len(x.shape) == 1 else g.flatten(x) for x in results]
    output = g.concat(*flat) if len(flat) > 1 else flat[0]
    parts = {x.name: vector.shape[0] for x, vector in zip(results, flat, strict=True)}
    return g.graph(output, features=output, name="drawn"), parts


def noise(graph: Graph, count: int = 2, seed: int = 1) -> np.ndarray:
    """Noise; uint8 (N, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input_shape), np.uint8)


def wanted(network: Graph | Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The plain definition: float64, or whole numbers; of a quantized network, float32."""
    model = network if isinstance(network, Model) else model_of(network)
    definition = integer if model.graph.integer else floating
    return definition.run(model.graph, model.weights, model.preprocessing.normalise(images))


def check(
    network: Graph | Model,
    parts: Mapping[str, int] | None = None,
    *,
    target: str = "host",
    images: np.ndarray | None = None,
    planned_for: int = 2,
    tune: bool = False,
) -> None:
    """Fails unless the compiled graph is right on any number of threads and in memory that holds anything.

    `parts` are names and lengths of what a single output is joined from; each is compared on its own scale.
    `planned_for` is the number of threads that the plan has work for.
    """
    graph = network.graph if isinstance(network, Model) else network
    images = noise(graph) if images is None else images
    want = wanted(network, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{targets.host().suffixes[0]}"
        link.write(compiled_for(target, network, threads=planned_for, tune=tune).program, path)
        got = in_child(_run, path, images, graph.results)
    for how, outputs in got.items():
        equal(outputs, want, how) if graph.integer else agree(outputs, want, how, parts)
    first, *others = got.items()
    for how, outputs in others:
        for name, ours in outputs.items():
            assert np.array_equal(first[1][name], ours), f"{name}, {how}: differs from {first[0]}"


def equal(got: Outputs, want: Outputs, how: str = "") -> None:
    """Fails unless every output is the plain definition's, bit for bit."""
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        np.testing.assert_array_equal(got[name], theirs, err_msg=f"{name}, {how}")


def agree(got: Outputs, want: Outputs, how: str = "", parts: Mapping[str, int] | None = None) -> None:
    """Fails unless every output is the plain definition's, to `TOLERANCE` or, for whole numbers, to rare roundings."""
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        if np.issubdtype(theirs.dtype, np.integer):
            off = np.abs(got[name].astype(int) - theirs.astype(int))
            rare = off.max(initial=0) <= 1 and np.count_nonzero(off) <= 1 + off.size // 1000
            assert got[name].dtype == theirs.dtype and rare, f"{name}, {how}: other whole numbers"  # noqa: PT018
            continue
        start = 0
        for part, length in (parts or {name: theirs.shape[-1]}).items():
            one, other = (values[..., start : start + length] for values in (got[name], theirs))
            start += length
            error = np.abs(one - other).max() / max(np.abs(other).max(), 0.1)
            assert error < TOLERANCE, f"{part}, {how}: relative error {error:.1e}"


def _run(path: Path, images: np.ndarray, results: Mapping[str, Tensor]) -> dict[str, Outputs]:
    """Outputs by the way in which they were computed."""
    got: dict[str, Outputs] = {"memory of NaN": run_guarded(path, images, results)}
    for threads in THREADS:
        net = compiled.load(path, threads)
        assert net.outputs == results
        got[f"{threads} threads"] = net.run(images)
        again = net.run(images[::-1].copy())  # on what another image left in memory
        got[f"{threads} threads again"] = {name: array[::-1] for name, array in again.items()}
    return got


def run_guarded(path: Path, images: np.ndarray, results: Mapping[str, Tensor]) -> Outputs:
    """Outputs from the C interface: all that the network is given ends where the memory ends, and all of it is NaN."""
    library = ctypes.CDLL(str(path))
    library.smallcnn_memory.restype = ctypes.c_size_t
    size = library.smallcnn_memory(1)
    net = ctypes.c_void_p()
    arrays = {name: np.empty((len(images), *tensor.shape), tensor.number) for name, tensor in results.items()}
    memory, picture = Guarded(size), Guarded(images[0].size)
    answers = [Guarded(tensor.bytes) for tensor in results.values()]
    places = (ctypes.c_void_p * len(answers))(*(answer.address for answer in answers))
    # one byte further, so that the network's memory, which starts on a multiple of 128, ends with the page
    error = library.smallcnn_create_in(ctypes.c_void_p(memory.address + 1), ctypes.c_size_t(size), ctypes.byref(net))
    assert not error, error
    for i, image in enumerate(images):
        picture.write(image.tobytes())
        error = library.smallcnn_run(net, ctypes.c_void_p(picture.address), places)
        assert not error, error
        for answer, array in zip(answers, arrays.values(), strict=True):
            array[i] = np.frombuffer(answer.read(), array.dtype).reshape(array.shape[1:])
    return arrays


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
