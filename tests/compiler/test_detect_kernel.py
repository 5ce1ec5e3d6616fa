"""The end of a detector in C, called on its own: the same bits as its definition for the same inputs."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("halide")

from disassembled import disassembly, needs_objdump
from smallcnn.compiler import detecting, link, native, targets, zig
from smallcnn.compiler.specs import Count, Detect, Join, Rows
from smallcnn.ir import ops
from smallcnn.ir.types import Grid, Tensor
from smallcnn.reference.detection import anchors, detect
from smallcnn.reference.numbers import real

GRIDS = (
    ops.AnchorGrid(cells=(3, 5), sizes=((0.3, 0.2), (0.4, 0.4)), step=(1 / 3, 1 / 5)),
    ops.AnchorGrid(cells=(1, 1), sizes=((0.9, 0.8), (0.5, 0.9), (0.9, 0.5)), step=(1.0, 1.0)),
)
PIECES = ((15, 2), (1, 3))
"""Pixels and rows of each pixel, of each map."""
SSD = ops.Detect(
    anchors=GRIDS, score="sigmoid", background=False, centre="linear", size="exp", centre_scale=0.1, size_scale=0.2,
    y_first=True, clip=False, across=False, threshold=0.5, overlap=0.5, most=20,
)  # fmt: skip
BYTES = Grid((0.07,), (117,))
MEMORY = """
static unsigned char memory[1 << 24] __attribute__((aligned(64)));
void *halide_malloc(void *context, unsigned long bytes) { *(unsigned long *)context = bytes; return memory; }
void halide_free(void *context, void *at) { (void)context, (void)at; }
struct { float threshold, overlap; int most; } limits = {-1, -1, -1};
const void *detector_limits(void *context) { (void)context; return &limits; }
int KERNEL(void **arguments);
int run(void **arguments) { return KERNEL(arguments); }
"""


class Dimension(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("min", "extent", "stride", "flags")]


class Buffer(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_uint64), ("interface", ctypes.c_void_p), ("host", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("dimensions", ctypes.c_int32), ("dim", ctypes.POINTER(Dimension)), ("padding", ctypes.c_void_p),
    ]  # fmt: skip

    @classmethod
    def of(cls, array, lanes):
        """(pixel, lane) numbers, of which the first `lanes` count."""
        dims = (Dimension * 2)(Dimension(0, lanes, array.strides[0] // array.itemsize), Dimension())
        dims[0].stride, dims[1] = 1, Dimension(0, len(array), array.strides[0] // array.itemsize)
        return cls(host=array.ctypes.data, bits=8 * array.itemsize, dimensions=2, dim=dims)


class Kernel:
    """A kernel in C, loaded."""

    def __init__(self, spec, folder):
        name = f"k{abs(hash(spec))}"
        target = targets.host()
        paths = [folder / f"{name}.{part}.o" for part in ("kernel", "memory")]
        paths[0].write_bytes(native.compile_kernel(spec, name, target.machine))
        paths[1].write_bytes(link.compiled(f"#define KERNEL {name}_argv{MEMORY}", target, ("-fvisibility=default",)))
        zig.run("ld.lld", "-shared", *paths, "-o", folder / f"{name}.so")
        self.call = ctypes.CDLL(str(folder / f"{name}.so")).run
        self.taken = ctypes.c_uint64()

    def __call__(self, *buffers):
        context = ctypes.c_void_p(ctypes.addressof(self.taken))
        pointers = [ctypes.addressof(context), *map(ctypes.addressof, buffers)]
        assert self.call((ctypes.c_void_p * len(pointers))(*pointers)) == 0


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    """Runs the kernel of an operator, compiled once, on maps with idle lanes that hold what must not be read."""
    folder, kernels = tmp_path_factory.mktemp("kernels"), {}

    def run(op, rows, pieces=PIECES, grids=(None, None, None)):
        numbers = [("uint8" if grid else "float32") for grid in grids]
        parts = [
            Rows(len(pieces), row.shape[1], number, grid)
            for row, number, grid in zip(rows, numbers, grids, strict=False)
        ]
        spec = Detect(*parts, *(() if len(rows) > 2 else (None,)), op.anchor_count, op.most, detecting.settings(op))
        if spec not in kernels:
            kernels[spec] = Kernel(spec, folder)
        buffers, kept = [], []
        for row in rows:
            start = 0
            for pixels, each in pieces:
                lanes = each * row.shape[1]
                wide = np.full((pixels, lanes + 5), 77, row.dtype)
                wide[:, :lanes] = row[start : start + pixels * each].reshape(pixels, lanes)
                start += pixels * each
                kept.append(wide)
                buffers.append(Buffer.of(wide, lanes))
        place, found = anchors(op), np.full((op.most, 8), 55, np.float32)
        kernels[spec](*buffers, Buffer.of(place, 4), Buffer.of(found, 8))
        assert kernels[spec].taken.value <= spec.scratch_bytes
        assert not found[:, 6:].any()
        return found[:, :6]

    return run


VARIANTS = {
    "SSD": {},
    "across": {"across": True},
    "softmax with background": {"score": "softmax", "background": True, "threshold": 0.3},
    "softmax": {"score": "softmax", "threshold": 0.2},
    "softmax, few kept": {"score": "softmax", "background": True, "threshold": 0.02, "most": 3},
    "softmax, everything counts": {"score": "softmax", "threshold": 0.0, "most": 40},
    "plain, few kept": {"score": "none", "most": 3, "threshold": 0.4},
    "plain across": {"score": "none", "across": True, "background": True},
    "tanh and linear": {"centre": "tanh", "size": "linear", "y_first": False, "clip": True, "threshold": 0.1},
    "sigmoid sizes": {"size": "sigmoid", "overlap": 0.2, "most": 500, "threshold": 0.05},
    "objectness": {"objectness_power": 0.6, "score": "none", "threshold": 0.4},
    "objectness with softmax": {"objectness_power": 0.5, "score": "softmax", "background": True, "threshold": 0.2},
    "softmax across": {"score": "softmax", "across": True, "objectness_power": 0.6, "threshold": 0.35},
    "objectness alone": {"objectness_power": 1.0, "score": "sigmoid", "threshold": 0.3},
    "everything counts": {"threshold": 0.0, "overlap": 0.9},
    "nothing counts": {"threshold": 1.0},
    "no two may touch": {"overlap": 0.0, "size_scale": 0.6},
}


@pytest.mark.parametrize("classes", [5, 40], ids=["few classes", "many classes"])  # many: looked at in blocks
@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_the_same_bits_as_the_definition(finder, change, classes):
    op = replace(SSD, **change)
    rng = np.random.default_rng(0)
    counts = []
    for trial in range(40):
        code = (rng.normal(size=(op.anchor_count, 4)) * rng.choice([0.3, 1, 3])).astype(np.float32)
        scores = rng.normal(size=(op.anchor_count, classes)) * rng.choice([1, 4])
        if trial % 3 == 0:
            scores = np.round(scores)  # many ties
        rows = [code, scores.astype(np.float32)]
        if op.score == "none":
            rows[1] = np.clip(np.abs(rows[1]) / 4, 0, 1)
        if "objectness_power" in change:
            rows.append(np.round(rng.uniform(size=(op.anchor_count, 1)), 2).astype(np.float32))
        wanted = detect(op, *rows)
        np.testing.assert_array_equal(finder(op, rows), wanted)
        counts.append(np.count_nonzero(wanted[:, 4]))
    assert (max(counts) > 2) == (op.threshold < 1)


@pytest.mark.parametrize("across", [True, False])
def test_bytes_stand_for_their_real_numbers(finder, across):
    op = replace(SSD, across=across, background=across, threshold=0.55)
    rng = np.random.default_rng(1)
    for _ in range(40):
        stored = [rng.integers(0, 256, (op.anchor_count, columns), np.uint8) for columns in (4, 6)]
        numbers = [real(Tensor((), "uint8", BYTES), row).astype(np.float32) for row in stored]
        wanted = detect(op, *numbers)
        assert wanted[:, 4].any()
        np.testing.assert_array_equal(finder(op, stored, grids=(BYTES, BYTES)), wanted)


@pytest.mark.parametrize("candidates", [0, 1, 10_000])
@pytest.mark.parametrize("across", [True, False])
def test_any_number_of_candidates(finder, candidates, across):
    """Scratch is bounded by the anchors: the fixture checks it."""
    grid = ops.AnchorGrid(cells=(100, 100), sizes=((0.02, 0.02),), step=(0.01, 0.01))
    op = replace(SSD, anchors=(grid,), across=across, most=200)
    rng = np.random.default_rng(2)
    code, scores = (rng.normal(size=(10_000, columns)).astype(np.float32) for columns in (4, 3))
    scores = -np.abs(scores) - 0.01
    scores[rng.permutation(10_000)[:candidates]] *= -1
    wanted = detect(op, code, scores)
    assert np.count_nonzero(wanted[:, 4]) == min(candidates * (1 if across else 3), 200)
    np.testing.assert_array_equal(finder(op, [code, scores], pieces=((10_000, 1),)), wanted)


def test_what_is_not_a_number_is_not_found(finder):
    code, scores = np.zeros((33, 4), np.float32), np.full((33, 4), np.nan, np.float32)
    for change in ({}, {"score": "softmax", "background": True}, {"across": True}, {"score": "none"}):
        assert not finder(replace(SSD, **change), [code, scores]).any()
    scores[7, 2] = 3
    assert finder(SSD, [code, scores])[0, 5] == 2
    huge = np.full((33, 4), 1e6, np.float32)
    assert np.isfinite(finder(SSD, [huge, np.ones_like(scores)])).all()


@needs_objdump
@pytest.mark.parametrize(("level", "wide"), [("sse41", False), ("avx2", True), ("avx512", True)])
def test_it_has_the_vectors_of_its_level(level, wide, tmp_path):
    target = f"x86-64-linux-{level}"
    spec = Detect(
        Rows(1, 4, "float32"), Rows(1, 91, "float32"), None, SSD.anchor_count, SSD.most, detecting.settings(SSD)
    )
    (tmp_path / "kernel.o").write_bytes(native.compile_kernel(spec, "kernel", targets.parse(target).machine))
    text = disassembly(tmp_path / "kernel.o", target)
    assert "%xmm" in text
    assert ("%ymm" in text) is wide


def test_counts_what_is_above_zero(tmp_path):
    values, found = np.array([[0.5, 9], [0.0, 9], [1e-9, 9]], np.float32), np.zeros((1, 1), np.float32)
    Kernel(Count(), tmp_path)(Buffer.of(values, 1), Buffer.of(found, 1))
    assert found.item() == 2


def test_rows_are_joined_in_order(tmp_path):
    first, second = np.arange(12, dtype=np.uint8).reshape(3, 4), np.arange(50, 54, dtype=np.uint8).reshape(2, 2)
    joined = np.zeros((8, 3), np.uint8)
    Kernel(Join(Rows(2, 2, "uint8")), tmp_path)(Buffer.of(first, 4), Buffer.of(second, 2), Buffer.of(joined, 2))
    np.testing.assert_array_equal(joined[:, :2], [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [50, 51], [52, 53]])
