"""The tables and the chart of docs/compiler.md and docs/speed.md, from the records of benchmarks/engines.py.

    python benchmarks/tables.py             writes the tables between their marks, and docs/speed.svg
    python benchmarks/tables.py --check     fails if the pages say something else

One file of records for each processor: a new one adds columns to the first table and a section to docs/speed.md.
"Times as fast" is the better peer's time over that of the compiled file.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from textwrap import fill

import click

from chart import Series, chart
from records import FOLDER, Row, read
from smallcnn.cli.show import size

DOCS = Path(__file__).parents[1] / "docs"
NETWORKS = {
    "nine": (
        "mobilenet_v1", "mobilenet_v1:width=0.5", "mobilenet_v2", "shufflenet_v1:groups=3", "squeezenet_1_1",
        "effnet_cifar", "xception", "shufflenet_v2", "mobilenet_v3_large",
    ),
    "small": (
        "mobilenet_v1:width=0.25 at 128", "mobilenet_v2:width=0.25", "mobilenet_v2:width=0.35",
        "mobilenet_v2:width=0.5", "mobilenet_v2", "mobilenet_v2:width=1.4",
    ),
    "int8": (
        "mobilenet_v1 in int8", "mobilenet_v1:width=0.5 in int8", "mobilenet_v2 in int8",
        "shufflenet_v1:groups=3 in int8", "squeezenet_1_1 in int8", "effnet_cifar in int8",
        "shufflenet_v2 in int8", "mobilenet_v3_large in int8",
    ),
    "TensorFlow": (
        "mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_0.5_160_quant.tflite",
        "mobilenet_v1_0.75_192_quant.tflite", "mobilenet_v2_1.0_224_quant.tflite",
    ),
}  # fmt: skip
"""Registry names; "at 128" is another input resolution than the network's own, "in int8" is quantized. Or names of
TensorFlow Lite files, which have to be given by their paths."""
NAMED = [name for name in NETWORKS if name != "TensorFlow"]
"""Those that need no files."""
CHART = "speed.svg"
ENGINES = ("compiled", "onnxruntime", "openvino")
OF_FILES = "litert"
"""The engine of TensorFlow Lite files alone."""
CONDITIONS = {
    "default": ("default", False),
    "default, busy": ("default", True),
    "tuned": ("tuned", False),
    "tuned, busy": ("tuned", True),
}

_MARKS = re.compile(r"(<!-- begin: python benchmarks/tables.py (\w+) -->\n\n).*?(<!-- end -->)", re.DOTALL)
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "sse4_1": "SSE4.1", "asimd": "NEON"}


@dataclass(frozen=True)
class Record:
    """What one processor measured."""

    machine: Row
    rows: Sequence[Row]

    @property
    def threads(self) -> list[int]:
        """Numbers of threads that were measured."""
        return sorted({row["threads"] for row in self.rows})

    def row(self, model: str, threads: int, plan: str = "default", busy: bool = False) -> Row | None:
        """The row, if it was measured."""
        key = model, threads, plan, busy
        return next((row for row in self.rows if (row["model"], row["threads"], row["plan"], row["busy"]) == key), None)

    def some(self, networks: str, threads: int) -> list[Row]:
        """The rows of the default plan on a quiet machine, in the order of NETWORKS."""
        found = (self.row(model, threads) for model in NETWORKS[networks])
        return [row for row in found if row]


def series(records: Sequence[Record]) -> list[Series]:
    """Rows of the nine networks for each processor and number of threads."""
    return [
        (f"{record.machine['processor']}, {many(threads)}", [record.row(model, threads) for model in NETWORKS["nine"]])
        for record in records
        for threads in record.threads
        if record.some("nine", threads)
    ]


def speed(records: Sequence[Record]) -> str:
    """Times as fast for each network and processor: by medians and, in brackets, by least times."""
    columns = series(records)
    body = []
    for i, model in enumerate(NETWORKS["nine"]):
        found = [rows[i] for _, rows in columns]
        if known := [row for row in found if row]:
            body.append([model, millions(known[0]), *(lead(row) if row else "" for row in found)])
    means = [mean_lead([row for row in rows if row]) for _, rows in columns]
    return markdown([["network", "Mult-Adds", *(name for name, _ in columns)], *body, ["geometric mean", "", *means]])


def drawn(records: Sequence[Record]) -> str:
    """The chart of docs/speed.md."""
    return chart(NETWORKS["nine"], series(records), ratios)


def processors(records: Sequence[Record]) -> str:
    """A section for each processor."""
    return "\n".join(f"## {record.machine['processor']}\n\n{about(record)}\n\n{section(record)}" for record in records)


def section(record: Record) -> str:
    """All tables of one processor, each below a line that says what it shows."""
    parts = []
    for threads in record.threads:
        for head, table in (
            (f"{many(threads).capitalize()}, ms: median (least - most).", times(record.some("nine", threads))),
            (f"int8, {many(threads)}, ms: median (least - most).", times(record.some("int8", threads))),
            (
                f"TensorFlow's integer files, {many(threads)}, ms: median (least - most).",
                times(record.some("TensorFlow", threads)),
            ),
            (f"Small networks, {many(threads)}, billion Mult-Adds per second by medians.", small(record, threads)),
            (f"Other conditions, {many(threads)}: times as fast by medians (least).", conditions(record, threads)),
        ):
            if table:
                parts += [head, table]
    if table := costs(record.some("nine", record.threads[0])):
        parts += ["Memory, file and start-up, compiled / ONNX Runtime, and the compilation.", table]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def about(record: Record) -> str:
    """The machine, the software and the load, as one paragraph."""
    machine, rows = record.machine, record.rows
    level = next((name for flag, name in _VECTORS.items() if flag in machine["flags"]), None)
    caches = [f"{name} {bytes_ / 1024:,.0f} KiB" for name, bytes_ in machine["caches"].items()]
    virtual = "virtual machine" if "hypervisor" in machine["flags"] else None
    hardware = [f"{machine['cores']} cores", level, *caches, virtual, machine["system"]]
    versions = {f"{name} {number}" for row in rows for name, number in row["versions"].items()}
    dates = sorted({row["date"] for row in rows if row["date"]})
    commits = sorted({row["commit"] for row in rows if row["commit"]})
    lines = [", ".join(filter(None, hardware)) + ".", ", ".join(sorted(versions)) + "."]
    if dates:
        lines.append(f"Measured {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}, commit {', '.join(commits)}.")
    loads = [row["load"] for row in rows if "others" in row["load"] and not row["busy"]]
    if loads:
        most = max(one["others"] + one["stolen"] for one in loads)
        lines.append(f"Other programs and machines used up to {100 * most:.0f} % of the cores' time.")
    return fill(" ".join([*lines, *sorted({row["note"] for row in rows if "note" in row})]), 118)


def times(rows: Sequence[Row]) -> str:
    """Medians and ranges of every engine, the lead and the share of the peak."""
    engines = [*ENGINES, *([OF_FILES] if any(OF_FILES in row["engines"] for row in rows) else [])]
    body = []
    for row in rows:
        found = [row["engines"].get(engine) for engine in engines]
        ranges = [f"{one['median_ms']:.3f} ({one['min_ms']:.3f} - {one['max_ms']:.3f})" if one else "" for one in found]
        ranges = [
            "wrong" if engine in row.get("wrong", ()) else cell for engine, cell in zip(engines, ranges, strict=True)
        ]
        body.append([row["model"], *ranges, lead(row), of_peak(row)])
    mean = ["geometric mean", *[""] * len(engines), mean_lead(rows), ""] if rows else []
    return markdown([["network", *engines, "times as fast", "of peak"], *body, mean]) if body else ""


def small(record: Record, threads: int) -> str:
    """Mult-Adds per second of small networks, and the share of what MobileNetV2 reaches."""
    rows = record.some("small", threads)
    if len(rows) < 2:  # MobileNetV2 is one of the nine, too
        return ""
    whole = next((rate(row, "compiled") for row in rows if row["model"] == "mobilenet_v2"), None)
    body = []
    for row in rows:
        rates = [rate(row, engine) for engine in ENGINES]
        share = f"{rates[0] / whole:.0%}" if whole and rates[0] else ""
        body.append(
            [
                row["model"],
                millions(row),
                *(f"{one:.1f}" if one else "" for one in rates),
                share,
                lead(row),
                of_peak(row),
            ]
        )
    return markdown([["network", "Mult-Adds", *ENGINES, "of MobileNetV2", "times as fast", "of peak"], *body])


def conditions(record: Record, threads: int) -> str:
    """Leads with the default and the tuned plan, alone and next to a busy program."""
    every = [[record.row(model, threads, *one) for one in CONDITIONS.values()] for model in NETWORKS["nine"]]
    used = [i for i in range(len(CONDITIONS)) if any(rows[i] for rows in every)]
    if used in ([], [0]):
        return ""
    body, columns = [], [[row for rows in every if (row := rows[i])] for i in used]
    for model, rows in zip(NETWORKS["nine"], every, strict=True):
        if any(rows):
            body.append([model, *(lead(row) if (row := rows[i]) else "" for i in used)])
    head = ["network", *(list(CONDITIONS)[i] for i in used)]
    return markdown([head, *body, ["geometric mean", *map(mean_lead, columns)]])


def costs(rows: Sequence[Row]) -> str:
    """Memory and start-up, each measured in a process of its own, and seconds to compile and check the file."""
    body = []
    for row in rows:
        pair = [row["engines"][engine] for engine in ENGINES[:2]]
        keys = ("added_memory_bytes", "added_private_bytes", "file_bytes")
        sizes = [" / ".join(size(one[key]) for one in pair) for key in keys]
        starts = " / ".join(f"{one['start_ms']:.1f}" for one in pair)
        kernels = f" ({row['kernels'] - row['kernels_cached']} of {row['kernels']})" if row["kernels"] else ""
        compiled = f"{row['compile_seconds']:.1f}{kernels}" if row["compile_seconds"] else ""
        body.append([row["model"], *sizes, starts, compiled])
    head = ["network", "added memory", "added private memory", "file", "load + first, ms", "compile, s (new kernels)"]
    return markdown([head, *body]) if body else ""


def ratios(row: Row) -> tuple[float, float]:
    """The better peer's time over that of the compiled file: by medians, by least times."""
    ours, peers = row["engines"]["compiled"], [one for name, one in row["engines"].items() if name != "compiled"]
    medians, least = (min(one[key] for one in peers) / ours[key] for key in ("median_ms", "min_ms"))
    return medians, least


def lead(row: Row) -> str:
    """Times as fast, by medians and by least times."""
    medians, least = ratios(row)
    return f"{medians:.2f} ({least:.2f})"


def mean_lead(rows: Sequence[Row]) -> str:
    """Geometric means of both ratios."""
    medians, least = map(geometric_mean, zip(*map(ratios, rows), strict=True))
    return f"**{medians:.2f}** ({least:.2f})"


def of_peak(row: Row) -> str:
    """The compiled file's share of the machine's peak, of floats or of bytes; blank if that cannot be measured."""
    share = row["engines"]["compiled"]["share_of_peak"]
    return f"{share:.0%}" if share else ""


def rate(row: Row, engine: str) -> float | None:
    """Billion Mult-Adds per second by the median."""
    one = row["engines"].get(engine)
    return row["mult_adds"] / one["median_ms"] / 1e6 if one else None


def millions(row: Row) -> str:
    """Mult-Adds, in words of the papers."""
    return f"{row['mult_adds'] / 1e6:.1f} M"


def many(threads: int) -> str:
    """A number of threads in words."""
    return {1: "one thread", 2: "two threads"}.get(threads, f"{threads} threads")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {"speed": speed, "processors": processors}


def committed() -> list[Record]:
    """The records in benchmarks/records."""
    files = [read(path) for path in sorted(FOLDER.glob("engines-*.json"))]
    return [Record(file["machine"], file["rows"]) for file in files]


def filled(page: str, records: Sequence[Record]) -> str:
    """The page with its tables written between the marks."""
    return _MARKS.sub(lambda mark: f"{mark[1]}{TABLES[mark[2]](records).rstrip()}\n\n{mark[3]}", page)


@click.command()
@click.option("--check", is_flag=True, help="write nothing; fail if a page differs")
def main(check: bool) -> None:
    """Write the tables of the docs from the committed records."""
    records = committed()
    pages = {path: filled(path.read_text("utf-8"), records) for path in sorted(DOCS.glob("*.md"))}
    differing = []
    for path, new in {**pages, DOCS / CHART: drawn(records)}.items():
        if not path.exists() or path.read_text("utf-8") != new:
            differing.append(path.name)
            if not check:
                path.write_text(new, "utf-8", newline="\n")
    if check and differing:
        raise click.ClickException(f"not what the records say: {', '.join(differing)}; python benchmarks/tables.py")


if __name__ == "__main__":
    main()
