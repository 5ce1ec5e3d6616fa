"""Time and memory to open a model file and answer the first image, in a fresh process, without imports."""

import importlib
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from smallcnn import runtime
from smallcnn.errors import SmallcnnError
from smallcnn.model.probe import probe_image

_USERS_MISTAKE = 2


@dataclass(frozen=True)
class FirstUse:
    """Times in milliseconds and memory in bytes; None where the system does not report it.

    `peak_memory_bytes` is the peak of the whole process. `added_memory_bytes` is the peak beyond an interpreter with
    numpy and the engine imported. Both count the pages of a mapped file once they are read. `added_private_bytes` does
    not: it is the memory held after the first answer that no other process could share.
    """

    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    added_private_bytes: int | None


def first_use(file: Path, engine: str, threads: int) -> FirstUse:
    """Measures `file` in `engine`. Raises SmallcnnError if the file cannot be opened."""
    code = "import sys; from smallcnn.bench.first_use import _measure; _measure(*sys.argv[1:])"
    command = [sys.executable, "-P", "-c", code, str(file), engine, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == _USERS_MISTAKE:
        raise SmallcnnError(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"the process that measures {file} in {engine} died:\n{done.stderr}")
    return FirstUse(**json.loads(done.stdout.splitlines()[-1]))


def _measure(file: str, engine: str, threads: str) -> None:
    """Runs in the fresh process: prints one line of JSON, or the user's error on stderr."""
    try:
        if engine != "compiled" and find_spec(engine):  # if it is missing, opening the file says what to install
            importlib.import_module(engine)
        if file.lower().endswith(".safetensors") and engine != "torch":
            importlib.import_module("smallcnn.onnx.write")  # turns it into ONNX
        imported = _memory("VmHWM")
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        before, private = _memory("VmHWM"), _memory("RssAnon")
        start = time.perf_counter()
        net = runtime.open(file, engine=engine, threads=int(threads))
        load = time.perf_counter() - start
        image = probe_image(net.input_shape)
        start = time.perf_counter()
        net.run(image)
        first = time.perf_counter() - start
    except SmallcnnError as error:
        print(error, file=sys.stderr)
        sys.exit(_USERS_MISTAKE)
    after = _memory("VmHWM")
    use = FirstUse(
        load_ms=load * 1e3,
        first_ms=first * 1e3,
        peak_memory_bytes=None if after is None or imported is None else max(imported, after),
        added_memory_bytes=_difference(after, before),
        added_private_bytes=_difference(_memory("RssAnon"), private),
    )
    print(json.dumps(asdict(use)))


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _memory(kind: str) -> int | None:
    """Memory of this process in bytes: VmHWM, its peak, or RssAnon, its current memory not backed by a file.

    From /proc on Linux, where getrusage includes the parent's memory. Elsewhere only the peak is known.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith(f"{kind}:")]
        return int(lines[0].split()[1]) * 1024 if lines else None
    try:
        import resource
    except ImportError:
        return None
    if kind != "VmHWM":
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
