"""Kernels in C rather than Halide: what follows one rule after the other instead of filling a map.

They are called as Halide's are, with a context and buffers, and take working memory in the same way.
"""

from smallcnn.compiler import link, targets
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.specs import Count, Detect, Join, Native, Rows

SOURCES = ("buffer.h", "detector.h", "rows.h", "real.h", "detect.c", "count.c", "join.c")
"""Files of native/ that the kernels are made of."""

_TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int32": "int32_t"}


def compile_kernel(spec: Native, name: str, machine: Machine) -> bytes:
    """The object file of one kernel."""
    sources: tuple[str, ...]
    values: dict[str, object]
    match spec:
        case Detect():
            sources, values = ("detector.h", "rows.h", "real.h", "detect.c"), _detect(spec)
        case Count():
            sources, values = ("count.c",), {}
        case Join(rows):
            values = {"PIECES": rows.pieces, "COLUMNS": rows.columns, "NUMBER": _TYPES[rows.number]}
            sources = ("rows.h", "join.c")
    lines = [f"#define {key} {value}" for key, value in (values | {"KERNEL": f"{name}_argv"}).items()]
    lines += [link.native(source) for source in ("buffer.h", *sources)]
    target = targets.of_halide(machine.target)
    return link.compiled("\n".join(lines), target, ["-O3", *target.cpu])


def _detect(spec: Detect) -> dict[str, object]:
    values: dict[str, object] = dict(spec.settings) | {
        "ANCHORS": spec.anchors,
        "MOST": spec.most,
        "CLASSES": spec.scores.columns,
        "SCRATCH": spec.scratch_bytes,
        "LIVE_BYTES": spec.LIVE_BYTES,
        "PLACE_BYTES": spec.PLACE_BYTES,
    }
    for name, rows in (("CODE", spec.coded), ("SCORE", spec.scores), ("OWN", spec.objectness or Rows(0, 1))):
        values |= {f"{name}_PIECES": rows.pieces, f"{name}_NUMBER": _TYPES[rows.number], f"{name}_REAL(x)": "(x)"}
        if rows.grid:
            scale, zero = f"{rows.grid.scale[0].hex()}f", rows.grid.zero[0]
            values |= {f"{name}_REAL(x)": f"({scale} * (float)((x) - ({zero})))"}
            values |= {f"{name}_STORED(x)": f"((x) / {scale} + ({zero}))"}
    return values
