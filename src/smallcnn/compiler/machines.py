"""Models of machines: what the estimate of a kernel's time knows about a processor.

packaged(target)     a typical machine of the target's level: for cross-compilation, and where nothing can be measured
MachineModel         one machine and level of vector instructions; `calibrate` measures this one

`processors/` has one JSON file per packaged model, with the fields of `MachineModel` and nothing else.
"""

import json
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Self

from smallcnn.compiler.targets import Target
from smallcnn.errors import SmallcnnError

_LEVELS = {
    "sse41": "sandy-bridge-sse41",
    "avx2": "zen3-avx2",
    "avxvnni": "alder-lake-avx2",
    "avx512": "zen5-avx512",
    "vnni": "zen5-vnni",
    "neon": "cortex-a72",
    "dotprod": "cortex-a76",
    "simd128": "wasm-skylake",
}
"""The packaged model for a level."""
_PLATFORMS = {"arm-64-osx": "apple-m1"}
"""The packaged model for every level of a platform, where that says more."""


@dataclass(frozen=True)
class MachineModel:
    """A machine as one thread sees it. A vector is a full register of the level."""

    name: str
    """The processor and its level."""
    origin: str
    """How the figures were found: "measured"; "measured: " and which of them; "estimated: " and by what means."""
    multiply_adds_per_ns: float
    """Vector multiply-adds whose sums are independent. Without a fused instruction: pairs of both."""
    multiply_add_latency_ns: float
    """From one multiply-add to the next that adds to its sum."""
    loads_per_ns: float
    """Vectors read from the first-level cache."""
    broadcasts_per_ns: float
    """Floats read from the first-level cache into all lanes of a vector."""
    operations_per_ns: float
    """Instructions of any kind that are issued."""
    dots_per_ns: float
    """Vectors of sums to which products of bytes are added: four, two or one to each sum, see `Machine.dot`."""
    requantized_per_ns: float
    """Vectors of sums turned into bytes and stored."""
    woven_per_ns: float
    """Vectors of bytes with the rows of a depthwise window side by side, as many as a product takes."""
    first_level_bytes: int
    """Data that one thread can read again and again at the rate of the first-level cache."""
    second_level_bytes: int
    """The same for the second level."""
    third_level_bytes: int
    """The same for one thread's share of the third level; as `second_level_bytes` if there is none."""
    second_level_bytes_per_ns: float
    """Read in order from the second-level cache."""
    third_level_bytes_per_ns: float
    """Read in order from the third-level cache; as `memory_bytes_per_ns` if there is none."""
    memory_bytes_per_ns: float
    """Read in order from what is beyond all these."""
    call_ns: float
    """Starting a step: the call of a kernel with next to no work."""
    meeting_ns: float
    """A meeting of two threads that both run, between two steps."""
    waking_ns: float
    """Waking a thread that sleeps, until it has joined in a step."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise SmallcnnError(f"{self.name}: {field.name} must be a number above 0, not {value!r}")
        if not self.first_level_bytes <= self.second_level_bytes <= self.third_level_bytes:
            sizes = f"{self.first_level_bytes}, {self.second_level_bytes}, {self.third_level_bytes}"
            raise SmallcnnError(f"{self.name}: each cache level must be at least as large as the one before: {sizes}")

    def to_json(self) -> dict[str, Any]:
        """The fields, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """The model of a record. Raises SmallcnnError if a field is missing, unknown or of another type."""
        kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        if not isinstance(record, dict) or record.keys() != kinds.keys():
            found = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise SmallcnnError(f"the record of a machine has the fields {sorted(kinds)}, not {found}")
        for name, value in record.items():
            kind = kinds[name]
            if not isinstance(value, int | float if kind is float else kind):
                raise SmallcnnError(f"{name} of a machine must be of type {kind.__name__}, not {value!r}")
        return cls(**record)


def packaged(target: Target) -> MachineModel:
    """The packaged model of a typical machine that runs the target's code."""
    platform = next((name for name in _PLATFORMS if target.name.startswith(name)), "")
    return models()[_PLATFORMS.get(platform) or _LEVELS[target.level]]


@cache
def models() -> dict[str, MachineModel]:
    """All packaged models by name, sorted."""
    folder = files("smallcnn.compiler") / "processors"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda e: e.name)
    return {entry.name.removesuffix(".json"): MachineModel.from_json(json.loads(entry.read_text())) for entry in found}
