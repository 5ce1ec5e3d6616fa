"""Compilation end to end: artifact -> layers -> plan -> kernels -> one file, then a check of that file.

compile_file(artifact, "model.so")          for this machine
compile_file(artifact, "model.wasm", target="wasm")
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from smallcnn.compiler import build, layers, link, targets
from smallcnn.compiler import tune as tuning
from smallcnn.compiler.assemble import assemble
from smallcnn.compiler.calls import Call, Normalisation
from smallcnn.compiler.plan import plan
from smallcnn.compiler.program import Program
from smallcnn.compiler.targets import Target
from smallcnn.engines import compiled
from smallcnn.errors import CompileError, SmallcnnError, require
from smallcnn.model.metadata import describe
from smallcnn.model.model import Model
from smallcnn.model.probe import TOLERANCE, agrees, output_error, probe_answer, probe_image
from smallcnn.model.store import check_finite
from smallcnn.system.files import check_writable
from smallcnn.transform.fold import fold

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Compiled:
    """The result: the linked program, its plan, and the relative error found (host only)."""

    program: Program = field(repr=False)
    plan: tuple[Call, ...] = field(repr=False)
    error: float | None


def compile_file(
    artifact: Model,
    out: Path | str,
    *,
    target: str = "host",
    prefix: str | None = None,
    threads: int = 2,
    tune: bool = False,
    workers: int | None = None,
    report: Report = lambda done, total: None,
) -> Compiled:
    """Compiles a network into one file; `report` receives the number of kernels done and the total.

    Names in a .o file begin with `prefix`; default: the file's stem.

    The plan has work for `threads` threads in every strip; the file runs on any number. With `tune`, several variants
    of every kernel are timed on this machine and the fastest is kept; this takes minutes once per CPU and is cached.

    A file that this machine can load is loaded and compared with the reference before it is kept. Raises
    CompileError for an unsupported operator or a wrong answer, SmallcnnError for an unknown target,
    FileError if the file cannot be written, MissingExtra without Halide.
    """
    require("compiling", "compile", "halide", "ziglang")
    out, made_for = Path(out), targets.parse(target)
    kind = out.suffix.lower()
    if kind not in made_for.suffixes:
        raise SmallcnnError(f"{out}: a file for {made_for.name} must end in {' or '.join(made_for.suffixes)}")
    link.check_prefix(prefix, out)
    check_writable(out)
    artifact = artifact.in_rgb()
    check_finite(artifact, artifact.graph.name)
    answer = probe_answer(artifact.graph, artifact.weights, artifact.preprocessing)
    program, made = to_program(artifact, made_for, answer, threads=threads, tune=tune, workers=workers, report=report)
    error = None
    if kind in (".so", ".dll") and _runs_here(program.target):
        beside = out.with_name(f".{out.stem}.{os.getpid()}{kind}")
        try:
            link.write(program, beside)
            error = _error(beside, artifact, answer)
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    else:
        link.write(program, out, prefix)
    return Compiled(program, tuple(made), error)


def to_program(
    artifact: Model,
    target: Target,
    expected: Mapping[str, np.ndarray],
    *,
    threads: int = 2,
    tune: bool = False,
    workers: int | None = None,
    report: Report = lambda done, total: None,
) -> tuple[Program, list[Call]]:
    """The compiled but not yet linked network and its plan; cached kernels are reused.

    `expected` is the answer to the probe image, stored in the file's metadata.
    """
    machine = target.machine
    graph, weights = fold(artifact.graph, artifact.weights)
    image = Normalisation(*artifact.preprocessing.scale_and_shift())
    made_layers, answer = layers.lower(graph, weights, machine.vector)
    made = plan(made_layers, answer, machine, image, graph.input_shape, threads)
    workers = workers or os.cpu_count() or 1
    if tune and target.name != targets.host().name:
        raise SmallcnnError(f"kernels for {target.name} cannot be timed on this machine, {targets.host().name}")
    if tune:
        made = tuning.search(made, target, graph.input_shape, answer.channels, workers, report)
    elif target.name == targets.host().name:
        made = tuning.remembered(made, machine)
    kernels = build.build([call.spec for call in made], machine, workers, report)
    facts = describe(artifact, answer=expected)
    program = assemble(made, kernels, target, graph.name, facts, graph.input_shape, answer.channels)
    return program, made


def _runs_here(target: str) -> bool:
    """Whether the platform of this machine can load files for `target`."""
    host = targets.host()
    levels = ("sse41", "avx2", "avx512")
    name, _, level = target.rpartition("-")
    here, _, best = host.name.rpartition("-")
    if level in levels and best in levels:
        return name == here and levels.index(level) <= levels.index(best)
    return target == host.name


def _error(path: Path, artifact: Model, answer: Mapping[str, np.ndarray]) -> float:
    (got,) = compiled.load(path, 1).run(probe_image(artifact.graph.input_shape)).values()
    error = output_error(got[0], *answer.values())
    if not agrees(error):
        raise CompileError(
            f"the compiled {artifact.graph.name} is off by {error:.1e} of its largest output "
            f"(allowed: {TOLERANCE:.0e}); nothing written"
        )
    return error
