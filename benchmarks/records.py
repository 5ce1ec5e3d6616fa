"""Records of measurements: `benchmarks/records/BENCHMARK-PROCESSOR.json`, a file for each benchmark and processor.

    {"benchmark": "engines", "machine": {...}, "rows": [
    {...},
    {...}]}

`machine` describes the processor and its system. A row is one measurement, with the date, the commit, the versions and
the load of the machine while it was taken; a line of the file, so that a difference between two commits can be read.

    found = Records("engines", keys=("model", "threads"))
    with load() as seen:
        figures = ...
    found.put({"model": "mobilenet_v2", "threads": 1, **figures, "load": seen})
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from smallcnn.system.cpu import cpu_facts, cpu_flags, cpu_name
from smallcnn.system.files import write

FOLDER = Path(__file__).parent / "records"
Row = dict[str, Any]

_PACKAGES = ("smallcnn", "numpy", "halide", "onnxruntime", "openvino", "ai-edge-litert", "torch")
_FLAGS = re.compile(r"sse4_1|fma|f16c|avx\w*|amx\w*|asimd\w*|neon|sve\w*|fphp|i8mm|bf16|hypervisor")
"""Flags of Linux that matter to kernels; `hypervisor` marks a virtual machine."""

# Vendor, family, models, generation: Linux, arch/x86/include/asm/intel-family.h and arch/x86/kernel/cpu/amd.c. The name
# alone may say too little: a virtual machine often has an "Intel Xeon Processor".
_GENERATIONS: tuple[tuple[str, int, tuple[int, ...], str], ...] = (
    ("GenuineIntel", 6, (60, 63, 69, 70), "Haswell"),
    ("GenuineIntel", 6, (61, 71, 79, 86), "Broadwell"),
    ("GenuineIntel", 6, (78, 85, 94, 142, 158, 165, 166), "Skylake"),
    ("GenuineIntel", 6, (106, 108, 125, 126), "Ice Lake"),
    ("GenuineIntel", 6, (140, 141), "Tiger Lake"),
    ("GenuineIntel", 6, (143,), "Sapphire Rapids"),
    ("GenuineIntel", 6, (151, 154, 190), "Alder Lake"),
    ("GenuineIntel", 6, (170, 172), "Meteor Lake"),
    ("GenuineIntel", 6, (173, 174), "Granite Rapids"),
    ("GenuineIntel", 6, (183, 186, 191), "Raptor Lake"),
    ("GenuineIntel", 6, (207,), "Emerald Rapids"),
    ("AuthenticAMD", 23, (*range(0x30), *range(0x50, 0x60)), "Zen"),
    ("AuthenticAMD", 23, (*range(0x30, 0x50), *range(0x60, 0xB0)), "Zen 2"),
    ("AuthenticAMD", 25, (*range(0x10), *range(0x20, 0x60)), "Zen 3"),
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0xB0)), "Zen 4"),
    ("AuthenticAMD", 26, (*range(0x30), *range(0x40, 0x50), *range(0x60, 0x80)), "Zen 5"),
)


def machine() -> Row:
    """This machine and its software as JSON values; flags and caches are empty where there is no Linux to tell them.

    processor   its name, with the generation where the name lacks it
    cores       those this process may use
    flags       vector instructions, in the words of Linux
    caches      bytes by level ("L1d", "L2", "L3")
    """
    return {
        "processor": processor(cpu_name().rpartition(", ")[0], cpu_facts()),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "flags": sorted(flag for flag in cpu_flags() if _FLAGS.fullmatch(flag)),
        "caches": _caches(),
        "system": _system(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


@contextmanager
def load() -> Iterator[Row]:
    """What else the machine did during the block; a dictionary that is complete at its end.

    average_before, average_after   load averages of the last minute
    others, stolen                  shares of all cores' time that other programs used, and that the host gave to other
                                    virtual machines; Linux only

    Children count as this program once they have been waited for.
    """
    seen: Row = {"average_before": _load_average()}
    before, used = _stat(), _own_seconds()
    yield seen
    seen |= {"average_after": _load_average(), **shares(before, _stat(), _own_seconds() - used)}


def shares(before: str, after: str, own_seconds: float, ticks_per_second: int = 100) -> Row:
    """`others` and `stolen` of `load` from the contents of /proc/stat; empty without them."""
    if not before or not after:
        return {}
    first, last = ([int(word) for word in stat.split("\n")[0].split()[1:9]] for stat in (before, after))
    user, nice, system, idle, waiting, irq, soft, stolen = (b - a for a, b in zip(first, last, strict=True))
    busy = user + nice + system + irq + soft
    total = max(1, busy + idle + waiting + stolen)
    others = max(0.0, busy - own_seconds * ticks_per_second)
    return {"others": round(others / total, 3), "stolen": round(stolen / total, 3)}


class Records:
    """The rows of a benchmark on this processor, or those of the file `path`. Rows differ in the values of `keys`."""

    def __init__(self, benchmark: str, *, keys: Sequence[str], path: Path | None = None) -> None:
        self.benchmark, self.keys, self.machine = benchmark, tuple(keys), machine()
        self.path = path or FOLDER / f"{benchmark}-{slug(self.machine['processor'])}.json"

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order of their first measurement."""
        return read(self.path)["rows"] if self.path.exists() else []

    def find(self, **key: Any) -> Row | None:
        """The row with these values."""
        return next((row for row in self.rows if self._key(row) == self._key(key)), None)

    def measured_now(self, **key: Any) -> Row | None:
        """The row, if it was measured with this commit and these versions, so that a run can resume."""
        row = self.find(**key)
        return row if row and all(row[name] == self.machine[name] for name in ("commit", "versions")) else None

    def put(self, row: Mapping[str, Any]) -> Row:
        """Adds the row, or replaces the one with equal keys, and writes the file atomically. Returns the row as kept.

        Raises ValueError if the file's rows are from another processor, and WriteError.
        """
        if self.path.exists() and (there := read(self.path)["machine"]["processor"]) != self.machine["processor"]:
            raise ValueError(f"{self.path} has the figures of {there}; this is {self.machine['processor']}")
        about = {name: value for name, value in self.machine.items() if name not in ("commit", "versions")}
        origin = {"date": datetime.now(UTC).date().isoformat(), **{k: self.machine[k] for k in ("commit", "versions")}}
        new: Row = _rounded({**row, **origin})
        rows = {self._key(old): old for old in self.rows} | {self._key(new): new}
        write(self.path, text({"benchmark": self.benchmark, "machine": about, "rows": list(rows.values())}).encode())
        return new

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.keys)


def read(path: Path) -> dict[str, Any]:
    """A file of records."""
    return json.loads(path.read_text("utf-8"))


def text(record: Mapping[str, Any]) -> str:
    """A file of records as it is written: a line for each row."""
    head = {name: value for name, value in record.items() if name != "rows"}
    rows = ",\n".join(json.dumps(row) for row in record["rows"])
    return f'{json.dumps(head)[:-1]}, "rows": [\n{rows}]}}\n'


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def processor(name: str, about: Mapping[str, str]) -> str:
    """A short name, with the generation if /proc/cpuinfo tells a known one.

    A virtual machine may hide the model. The first processors with AMX were Sapphire and Emerald Rapids; those after
    them have `amx_fp16` (Linux, arch/x86/include/asm/cpufeatures.h).
    """
    name = " ".join(re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*|\b\d+-Core\b|\bProcessor\b|\(family .*?\)", "", name).split())
    given = about.get("vendor_id"), about.get("cpu family"), about.get("model")
    for vendor, family, models, generation in _GENERATIONS:
        if given in {(vendor, str(family), str(model)) for model in models}:
            return f"{name} ({generation})"
    found = set(about.get("flags", "").split())
    return f"{name} (Sapphire or Emerald Rapids)" if "amx_tile" in found and "amx_fp16" not in found else name


def _caches() -> dict[str, int]:
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, text = (cache / "level", cache / "type", cache / "size")
        size = re.fullmatch(r"(\d+)K", text.read_text().strip()) if text.exists() else None
        if size and (name := kind.read_text().strip()) != "Instruction":
            found[f"L{level.read_text().strip()}{'d' * (name == 'Data')}"] = int(size[1]) * 1024
    return found


def _system() -> str:
    name = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    try:
        return f"{name}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this checkout, with a plus if its source was changed since."""
    asked = []
    for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", "../src")):
        try:
            done = subprocess.run(["git", *words], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        asked.append(done.stdout.strip())
    return asked[0] + "+" * bool(asked[1])


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _stat() -> str:
    path = Path("/proc/stat")
    return path.read_text() if path.exists() else ""


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _rounded(value: Any) -> Any:
    """Floats to six digits: more is noise, and makes long lines."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
