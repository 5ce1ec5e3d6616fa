"""Compilation end to end: model -> layers -> plan -> kernels -> one file, then a check of that file.

compile_file(model, "model.so")          for this machine
compile_file(model, "model.wasm", target="wasm")
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

import numpy as np

from smallcnn.compiler import build, link, targets
from smallcnn.compiler import tune as tuning
from smallcnn.compiler.assemble import assemble
from smallcnn.compiler.calibrate import of_host
from smallcnn.compiler.calls import Call, Context, Normalisation
from smallcnn.compiler.lower import lower
from smallcnn.compiler.machines import MachineModel, packaged
from smallcnn.compiler.plan import plan
from smallcnn.compiler.program import Program
from smallcnn.compiler.stand import Stand
from smallcnn.compiler.targets import Target
from smallcnn.engines import compiled
from smallcnn.errors import CompileError, SmallcnnError, WriteError, require
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.model.kinds import read
from smallcnn.model.metadata import describe
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_answer, probe_image, relative_error, tolerance
from smallcnn.model.sightings import telling
from smallcnn.model.store import check_finite
from smallcnn.model.tuning import SECONDS, Tuning
from smallcnn.system.cpu import usable_cores
from smallcnn.system.files import check_writable
from smallcnn.transform.fold import fold

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Compiled:
    """The program and its plan, made for a machine as `model` describes it; `cached` of its kernels had been compiled
    before. `error` is the file's relative error, None if it does not run here. `tuning` says which kernels were chosen
    by timing, None if none was; `complete`: all forms are timed.
    """

    program: Program = field(repr=False)
    plan: tuple[Call, ...] = field(repr=False)
    cached: int
    model: MachineModel
    error: float | None = None
    tuning: Tuning | None = None
    complete: bool = False


def compile_file(
    file: Model | Path | str,
    out: Path | str,
    *,
    target: str = "host",
    prefix: str | None = None,
    threads: int = 2,
    compact: bool = False,
    tune: float | bool = False,
    calibrate: bool = False,
    workers: int | None = None,
    report: Report = lambda done, total: None,
    measuring: Report = lambda done, total: None,
    tell: tuning.Tell = lambda spent, gain: None,
) -> Compiled:
    """Compiles a model, or a model file, into one file; `report` receives the number of kernels done and the total.

    Names in a .o file begin with `prefix`; default: the file's stem. `compact`: no kernel holds more weights than its
    layers have, as fast 3x3 convolutions do.

    The plan has work for `threads` threads in every strip; the file runs on any number. With `tune`, forms of every
    kernel are timed on this machine, on `threads` threads, for that many seconds, or `SECONDS` if True; the
    fastest are kept, and used by later compilations for this processor and as many threads. `tell` receives the seconds
    spent on it and the gain so far.

    A file for this machine is planned by what was measured on it: once per CPU, in seconds; again with `calibrate`.
    `measuring` receives the steps done and their total, if it measures.

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
    model = (file if isinstance(file, Model) else read(file)).in_rgb()
    check_finite(model, model.graph.name)
    answer = probe_answer(model.graph, model.weights, model.preprocessing)
    if calibrate:
        of_host(made_for, again=True, report=measuring)

    def program(compact: bool) -> Compiled:
        return to_program(
            model,
            made_for,
            answer,
            threads=threads,
            compact=compact,
            tune=tune,
            workers=workers,
            report=report,
            measuring=measuring,
            tell=tell,
        )

    made = program(compact)
    if kind not in (".so", ".dll") or not targets.runs_here(made_for):
        link.write(made.program, out, prefix)
        return made
    temporary = out.with_name(f".{out.stem}.{token_hex(4)}{kind}")
    try:
        if twin := telling(model.graph, answer):
            other = replace(model, graph=twin)
            wanted = probe_answer(other.graph, other.weights, other.preprocessing)
            twin_made = to_program(other, made_for, wanted, threads=threads, compact=compact, workers=workers)
            link.write(twin_made.program, temporary)
            _check(_error(temporary, other, wanted), other)
            temporary.unlink()
        link.write(made.program, temporary)
        error = _error(temporary, model, answer)
        if not error <= _allowed(model) and any(tile.side for call in made.plan for tile in call.choice.tiles):
            print(
                f"note: with fast 3x3 convolutions {model.graph.name} is off by {error:.1e} of its largest output; "
                "compiled without them, as with --compact",
                file=sys.stderr,
            )
            made = program(compact=True)
            link.write(made.program, temporary)
            error = _error(temporary, model, answer)
        _check(error, model)
        temporary.replace(out)
    except WriteError as problem:
        raise WriteError(str(problem).replace(str(temporary), str(out))) from problem
    finally:
        temporary.unlink(missing_ok=True)
    return replace(made, error=error)


def to_program(
    model: Model,
    target: Target,
    expected: Mapping[str, np.ndarray],
    *,
    threads: int = 2,
    compact: bool = False,
    tune: float | bool = False,
    workers: int | None = None,
    report: Report = lambda done, total: None,
    measuring: Report = lambda done, total: None,
    tell: tuning.Tell = lambda spent, gain: None,
) -> Compiled:
    """The compiled but not yet linked network; cached kernels are reused.

    `expected` is the answer to the probe image, stored in the file's metadata.
    """
    graph, weights = fold(model.graph, model.weights)
    image = Normalisation(*model.preprocessing.scale_and_shift())
    here = targets.runs_here(target)
    known = of_host(target, report=measuring) if here else packaged(target)
    context = Context(target.machine, known, image, graph.input_shape, compact)
    tuned = tuning.Tuned(plan(*lower(graph, weights, context.vector), context, threads))
    workers = workers or usable_cores()
    if tune:
        seconds = SECONDS if tune is True else float(tune)
        if not here:
            raise SmallcnnError(f"kernels for {target.name} cannot be timed on this machine, {targets.host().name}")
        if not 0 < seconds < math.inf:
            raise SmallcnnError(f"seconds of tuning must be above 0, not {seconds}")
        build.build([call.spec for call in tuned.plan], context.machine, workers, report)
        stand = Stand(context, graph.results, target, min(threads, usable_cores()), workers)
        tuned = tuning.search(tuned.plan, context, threads, stand, seconds=seconds, tell=tell)
    elif here:
        tuned = tuning.remembered(tuned.plan, context, threads)
    kernels = build.build([call.spec for call in tuned.plan], context.machine, workers, report)
    facts = describe(model, answer=expected, tuning=tuned.tuning)
    program = assemble(tuned.plan, kernels.objects, target, graph.name, facts, graph.input_shape, graph.results)
    made = Compiled(program, tuple(tuned.plan), kernels.cached, context.model)
    return replace(made, tuning=tuned.tuning, complete=tuned.complete)


def _mixed(graph: Graph) -> bool:
    """Whether a layer computes floats, which may be rounded to other bytes than the definition's."""
    return any(
        node.inputs
        and not (node.op.moves or isinstance(node.op, ops.Quantize))
        and not any(graph[name].tensor.grid for name in node.inputs)
        for node in graph
    )


def _error(path: Path, model: Model, answer: Mapping[str, np.ndarray]) -> float:
    got = compiled.load(path, 1).run(probe_image(model.graph.input_shape))
    return relative_error({name: batch[0] for name, batch in got.items()}, answer)


def _allowed(model: Model) -> float:
    return tolerance(integer=model.graph.integer and _mixed(model.graph))


def _check(error: float, model: Model) -> None:
    if not error <= (allowed := _allowed(model)):
        raise CompileError(
            f"the compiled {model.graph.name} is off by {error:.1e} of its largest output "
            f"(allowed: {allowed:.0e}); nothing written"
        )
