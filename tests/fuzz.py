"""Damaged files by the thousand, each read in a process that may neither hang nor take much memory.

A module with `judge(case, stage) -> str` is run as `python -m fuzz MODULE FIRST COUNT`: it damages a file as the number
`case` says, reads it, and returns an outcome. What it raises is a failure; so is a death or silence of the process,
unless `stage` was told before that another's code runs now ("onnxruntime").
"""

import importlib
import os
import resource
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS = 20
"""Silence that counts as a hang; a case takes milliseconds."""

MEMORY = 512 * 2**20
"""Bytes that reading may take beyond what the process had before; the files are below 1 MB."""


def survive(module: str, first: int, count: int) -> Counter[str]:
    """How many of `count` cases came to each outcome. AssertionError naming the case that failed, and how."""
    outcomes: Counter[str] = Counter()
    end = first + count
    while first < end:
        first = _until_death(module, first, end, outcomes)
    return outcomes


def _until_death(module: str, first: int, end: int, outcomes: Counter[str]) -> int:
    """Runs cases until all are done or the process dies in another's code; the next case to run."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fuzz", module, str(first), str(end - first)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        case, stage = first, "start"
        os.set_blocking(process.stdout.fileno(), False)
        pending = b""
        while True:
            heard, _, _ = select.select([process.stdout], [], [], SECONDS)
            received = process.stdout.read() if heard else None
            if not received:
                process.kill()
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                number, stage = line.decode().split(" ", 1)
                case = int(number)
                if stage.startswith("done "):
                    outcomes[stage.removeprefix("done ")] += 1
        if stage == "onnxruntime":
            outcomes["onnxruntime died"] += 1
            return case + 1
        said = process.stderr.read().decode(errors="replace")[-2000:]
        finished = case == end - 1 and stage.startswith("done ")
        assert finished, f"{module}: case {case} {'hangs' if not heard else 'kills the process'} ({stage}): {said}"
        return end


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few of them changed, cut out, doubled or put in; mostly near the ends, where files describe."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        far = int(min(rng.exponential(len(data) / rng.choice([2, 20, 200])), len(data) - 1))
        at = far if rng.random() < 0.6 else len(data) - 1 - far
        length = int(rng.integers(1, 9))
        match rng.integers(7):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(length)
            case 2:
                data[at : at + length] = b"\xff" * length
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + 10 * length]
            case 5:
                data[at : at + length] = b"\x00" * length
            case 6:
                del data[at:]
        data = data or bytearray(b"\x00")
    return bytes(data)


def _run(module: str, first: int, count: int) -> None:
    judge = importlib.import_module(module).judge
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for case in range(first, first + count):

        def stage(name: str, case: int = case) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            print(case, name, flush=True)

        print(case, "reading", flush=True)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
        outcome = judge(case, stage)
        stage(f"done {outcome}")


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
