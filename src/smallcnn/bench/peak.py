"""Peak Mult-Adds per second of this machine, as a yardstick for speeds.

    sum[c, p] = start[c], then times factor[k] plus term[k], for every k in turn

Each register holds its own chain of fused multiply-adds, enough of them side by side to hide the latency of each; per k
they share one broadcast load of `factor` and of `term`. Factors below 1 keep the sums finite and normal. As a program
of one step, the chains are shared by threads like any layer.
"""

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from smallcnn.bench import integer_peak
from smallcnn.compiler import link, targets
from smallcnn.compiler.build import object_file
from smallcnn.compiler.program import Buffer, Program, Step
from smallcnn.compiler.targets import Target
from smallcnn.engines.compiled import CompiledFile, load
from smallcnn.engines.seal import FORMAT
from smallcnn.errors import FileError
from smallcnn.ir.types import Tensor
from smallcnn.system.cache import cache_folder, kept, passing_folder
from smallcnn.system.files import write

_KERNEL = "peak"
_IMAGE = np.zeros((1, 1, 1), np.uint8)
_LENGTH, _CHAINS = 1500, 120
"""Links of a chain, and how often all registers are filled: a third of a millisecond on one thread of a Zen 3. Splits
evenly over 2 to 6, 8, 10 and 12 threads."""


@dataclass
class Meter:
    """A compiled file for the measurement, the work of one run, and the nanoseconds of each run."""

    file: CompiledFile
    mult_adds: int
    taken: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Runs once on all threads."""
        self.taken.append(int(self.file.time(_IMAGE)[0]))

    @property
    def speed(self) -> float:
        """Mult-Adds per second of the median run."""
        return self.mult_adds / float(np.median(self.taken)) * 1e9


def meter(threads: int, *, integer: bool = False) -> Meter:
    """A meter for this machine, of floats or of bytes, from the cache or newly compiled.

    Raises MissingExtra without Halide.
    """
    target = targets.host()
    vectors = target.registers - 4
    if integer:
        kind, mult_adds, source = f"{target.name}-bytes", integer_peak.mult_adds(target), integer_peak.__file__
    else:
        kind, mult_adds, source = target.name, vectors * target.vector * _LENGTH * _CHAINS, __file__
    code = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    path = cache_folder() / "peak" / f"{kind}-{FORMAT}-{code}{target.suffixes[0]}"

    def linked() -> bytes:
        return _linked(integer_peak.program(target) if integer else _program(target, vectors), target)

    try:
        return Meter(load(kept(path, linked), threads), mult_adds)
    except FileError:  # damaged, or in a cache that may hold no programs (noexec)
        return Meter(load(write(passing_folder() / path.name, linked()), threads), mult_adds)


def _linked(program: Program, target: Target) -> bytes:
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as folder:
        path = Path(folder) / f"peak{target.suffixes[0]}"
        link.write(program, path)
        return path.read_bytes()


def _program(target: Target, vectors: int) -> Program:
    lanes = vectors * target.vector
    reads = {
        "start": np.linspace(1, 2, lanes),
        "factor": np.linspace(0.5, 0.6, _LENGTH),
        "term": np.linspace(0.4, 0.5, _LENGTH),
    }
    buffers, offset = [], 0
    for values in reads.values():
        buffers.append(Buffer("weights", offset, "float32", values.shape, (1,)))
        offset = buffers[-1].end
    output = Buffer("arena", 0, "float32", (lanes, _CHAINS), (1, lanes))
    return Program(
        name=_KERNEL,
        target=target.name,
        features=target.features,
        objects=(_kernel(target, vectors),),
        steps=(Step(_KERNEL, (*buffers, output), split=1, grain=1, label=_KERNEL),),
        arena_bytes=output.end,
        scratch_bytes=0,
        weights=np.concatenate(list(reads.values())).astype(np.float32).tobytes(),
        metadata={},
        input_shape=(1, 1, 1),
        outputs={"unused": Tensor((1,))},
    )


def _kernel(target: Target, vectors: int) -> bytes:
    """The kernel's object file. Operands: start (lanes,), factor and term (length,), output (lanes, chains)."""
    import halide as hl

    lanes = vectors * target.vector
    start, factor, term = (hl.ImageParam(hl.Float(32), 1, name) for name in ("start", "factor", "term"))
    for param, extent in ((start, lanes), (factor, _LENGTH), (term, _LENGTH)):
        param.dim(0).set_bounds(0, extent)
    c, p, k = hl.Var("c"), hl.Var("p"), hl.RDom([(0, _LENGTH)], "k")
    sums, out = hl.Func("sums"), hl.Func("out")
    sums[c, p] = start[c]
    sums[c, p] = sums[c, p] * factor[k[0]] + term[k[0]]
    out[c, p] = sums[c, p]
    out.bound(c, 0, lanes).vectorize(c, target.vector).unroll(c)
    sums.compute_at(out, p).vectorize(c, target.vector).unroll(c)
    sums.update().reorder(c, k[0]).vectorize(c, target.vector).unroll(c).unroll(k[0], 4)
    out.output_buffer().dim(0).set_bounds(0, lanes)
    out.output_buffer().dim(1).set_stride(lanes)
    return object_file(hl.Pipeline([out]), [start, factor, term], _KERNEL, target.machine)
