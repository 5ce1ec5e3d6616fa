"""Compiles kernels to machine code: each distinct specification once, in worker processes, with a cache.

A worker (`python -m smallcnn.compiler.build`) reads pickled specifications from its parent and answers with object
files; plain processes instead of multiprocessing, so that a user's script needs no __main__ guard.
"""

import hashlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from smallcnn.compiler import narrowing, native, prefetch, retarget, rounding, weaving
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.specs import Native, Spec
from smallcnn.errors import CompileError
from smallcnn.system.cache import cache_folder, keep, recalled

_LLVM = f"-vectorize-slp=false {retarget.UNCOMBINED}"
"""LLVM flags. The superword vectorizer packs a tile's pixel addresses into vectors and unpacks them in the innermost
loop: 55 instead of 95 GFLOP/s for a 3x3 convolution."""

_SOURCES = (
    *("arithmetic.py", "build.py", "link.py", "narrowing.py", "native.py", "prefetch.py", "retarget.py", "rounding.py"),
    *("specs.py", "storage.py", "targets.py", "weaving.py", "winograd.py", "zig.py"),
)

_DIGEST = hashlib.sha256().digest_size

Report = Callable[[int, int], None]


def kernel_name(spec: Spec, machine: Machine) -> str:
    """The exported name of a kernel, unique per specification and machine."""
    return "k" + hashlib.sha256(repr((spec, machine)).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Built:
    """Object files by kernel name; `cached` of them had been compiled before."""

    objects: dict[str, bytes]
    cached: int


def build(
    specs: Sequence[Spec],
    machine: Machine,
    workers: int,
    report: Report = lambda done, total: None,
    enough: Callable[[], bool] = lambda: False,
) -> Built:
    """The kernels, from the cache or newly compiled; `report` receives the number done and the total.

    Kernels are begun in the order of `specs`. None is begun once there are `enough`; the rest is missing in the result.
    """
    folder = cache_folder() / "kernels" / version()
    wanted = {kernel_name(spec, machine): spec for spec in specs}
    found = {name: content for name in wanted if (content := _checked(recalled(folder / f"{name}.o")))}
    waiting: queue.SimpleQueue[tuple[str, Spec]] = queue.SimpleQueue()
    missing = [item for item in wanted.items() if item[0] not in found]
    for item in missing:
        waiting.put(item)
    errors: list[BaseException] = []
    cached = len(found)
    report(cached, len(wanted))

    def work() -> None:
        try:
            with _Worker() as worker:
                while not errors and not enough():
                    try:
                        name, spec = waiting.get_nowait()
                    except queue.Empty:
                        return
                    found[name] = worker.compile(spec, machine)
                    keep(folder / f"{name}.o", found[name] + hashlib.sha256(found[name]).digest())
                    report(len(found), len(wanted))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(missing)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Built({name: found[name] for name in wanted if name in found}, cached)


def _checked(stored: bytes | None) -> bytes | None:
    """An object file that was kept with its hash; None if either is damaged."""
    content, digest = (stored or b"")[:-_DIGEST], (stored or b"")[-_DIGEST:]
    return content if content and hashlib.sha256(content).digest() == digest else None


def sources() -> list[Path]:
    """The files that decide what a specification's machine code is."""
    here = Path(__file__).parent
    files = map(here.joinpath, _SOURCES)
    return [*files, *sorted((here / "kernels").glob("*.py")), *map((here / "native").joinpath, native.SOURCES)]


@cache
def version() -> str:
    """The version of the kernels, which changes with their sources, with Halide and with clang."""
    from importlib import metadata

    content = f"{metadata.version('halide')} {metadata.version('ziglang')}".encode()
    content += b"".join(path.read_bytes() for path in sources())
    return hashlib.sha256(content).hexdigest()[:16]


class _Worker:
    """A process that compiles one specification after the other; what it prints goes to a file, which cannot fill up as
    a pipe does that nobody reads."""

    def __enter__(self) -> "_Worker":
        self.said = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", "smallcnn.compiler.build"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=os.environ | {"HL_LLVM_ARGS": _LLVM},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def compile(self, spec: Spec, machine: Machine) -> bytes:
        """One kernel's object file."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            pickle.dump((spec, machine), self.process.stdin)
            self.process.stdin.flush()
            return bytes(pickle.load(self.process.stdout))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:  # it has died
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().decode(errors="replace").strip().splitlines() or ["its process has ended"]
            what = next((line for line in said if " error: " in line), said[-1])  # clang's first, or the last words
            raise CompileError(f"a kernel ({type(spec).__name__}) could not be compiled: {what}") from error


def compile_kernel(spec: Spec, machine: Machine) -> bytes:
    """The object file of one kernel."""
    if isinstance(spec, Native):
        return native.compile_kernel(spec, kernel_name(spec, machine), machine)
    from smallcnn.compiler.kernels import pipeline

    return object_file(*pipeline(spec, machine), kernel_name(spec, machine), machine)


def object_file(pipeline: Any, operands: Sequence[Any], name: str, machine: Machine) -> bytes:
    """The object file of a Halide pipeline with the exported `name`."""
    import halide as hl

    operands = list(operands)
    of_bytes = any(operand.type() == hl.Int(8) for operand in operands)
    dots = machine.dots if of_bytes else None
    rounds = of_bytes and machine.rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        if dots or rounds or any(prefetch.MARK in operand.name() for operand in operands):
            target = hl.Target(dots.target if dots else machine.target)
            pipeline.compile_to_llvm_assembly(str(path), operands, name, target)
            code = rounding.rounded_at_once(prefetch.prefetched(path.read_text()))
            if machine.packs_quarters:
                code = narrowing.packed_together(code)
            if machine.permutes_bytes:
                code = weaving.permuted_at_once(code)
            return retarget.to_object(code, dots)
        pipeline.compile_to_object(str(path), operands, name, hl.Target(machine.target))
        return path.read_bytes()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Halide prints its messages to stdout
    while True:
        try:
            spec, machine = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(compile_kernel(spec, machine), answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
