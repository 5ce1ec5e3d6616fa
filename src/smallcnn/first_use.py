"""What it takes to open a model file and answer the first image, measured in a fresh process; imports not counted."""

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
from smallcnn.probe import probe_image

_USERS_MISTAKE = 2


@dataclass(frozen=True)
class FirstUse:
    """Milliseconds, and bytes of memory; None where the system does not tell.

    `peak_memory_bytes` is the most that the whole process held, `added_memory_bytes` the most beyond an interpreter
    with numpy and the engine imported. Pages of a mapped file count in both, as soon as they are read;
    `added_private_bytes` is without them, what is held after the first answer and no other process could share.
    """

    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    added_private_bytes: int | None


def first_use(file: Path, engine: str, threads: int) -> FirstUse:
    """Raises SmallcnnError if the file cannot be opened."""
    code = "import sys; from smallcnn.first_use import _measure; _measure(*sys.argv[1:])"
    command = [sys.executable, "-P", "-c", code, str(file), engine, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == _USERS_MISTAKE:
        raise SmallcnnError(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"the process that measures {file} in {engine} died:\n{done.stderr}")
    return FirstUse(**json.loads(done.stdout.splitlines()[-1]))


def _measure(file: str, engine: str, threads: str) -> None:
    """Runs in the fresh process: prints one line of JSON, or what the user has to mend on stderr."""
    try:
        if engine != "compiled" and find_spec(engine):  # if it is not there, opening the file says what to install
            importlib.import_module(engine)
        if file.lower().endswith(".safetensors") and engine != "torch":
            importlib.import_module("smallcnn.onnx.writing")  # turns it into ONNX
        imported = _memory("VmHWM")
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        before, private = _memory("VmHWM"), _memory("RssAnon")
        start = time.perf_counter()
        net = runtime.open(file, engine=engine, threads=int(threads))
        load = time.perf_counter() - start
        picture = probe_image(net.input_shape)
        start = time.perf_counter()
        net.logits(picture)
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
    """Bytes of this process: VmHWM, the most it has held, or RssAnon, what it holds now and is no file's.

    From /proc on Linux: getrusage there includes what the parent held. Elsewhere only the first is known.
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
