"""How `compress` reports: a line for each trial of a search, and one for each step of what was made."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallcnn.cli.show import millions, say, size, table

if TYPE_CHECKING:
    from smallcnn.compress.pipeline import Compressed
    from smallcnn.compress.search import Searched

_FIGURES = ("bytes", "mult_adds", "parameters", "milliseconds")


def record(found: "Compressed", searched: "Searched | None", out: Path, data: str) -> dict[str, Any]:
    """What `--json` prints."""
    first, last = found.rows[0], found.rows[-1]
    both = (("before", first), ("after", last))
    made = {
        "file": str(out), "data": data, "split": found.part, "images": found.judged,
        f"{found.score}_before": first.score, f"{found.score}_after": last.score,
        **{f"{name}_{when}": asdict(row)[name] for name in _FIGURES for when, row in both},
        "steps": [asdict(row) for row in found.rows], "layers": [asdict(width) for width in found.widths],
    }  # fmt: skip
    if searched:
        made["search"] = {
            "limits": asdict(searched.limits), "chosen": searched.chosen, "reason": searched.reason,
            "split": searched.part, "images": searched.judged,
            "trials": [asdict(trial) for trial in searched.trials],
        }  # fmt: skip
    return made


def print_trials(searched: "Searched", score: str) -> None:
    """The table of the trials, if there were any, and why one was chosen."""
    from smallcnn.tasks.metrics import title

    if searched.trials:
        table(["combination", "epochs", f"{title(score)}, %", "file", "ms", ""], [
            [trial.plan, str(trial.epochs), "-" if trial.score is None else f"{100 * trial.score:.2f}",
             size(trial.bytes), _ms(trial.milliseconds), trial.problem or ""]
            for trial in searched.trials
        ])  # fmt: skip
        say(f"on {searched.judged} images ({searched.part})")
    say(f"chosen for {searched.limits}: {searched.chosen}; {searched.reason}")


def print_steps(found: "Compressed") -> None:
    """The table of the steps. Times that were not measured are estimates."""
    from smallcnn.compress.latency import machine
    from smallcnn.tasks.metrics import title

    measured = any(row.measured_milliseconds for row in found.rows)
    columns = ["step", f"{title(found.score)}, %", "file", "zipped", "Mult-Adds", "parameters", "ms", "ms int8"]
    table([*columns, "ms measured"] if measured else columns, [
        [row.name, f"{100 * row.score:.2f}", size(row.bytes), size(row.zipped_bytes), millions(row.mult_adds),
         millions(row.parameters), "-" if row.integer else _ms(row.milliseconds), _ms(row.int8_milliseconds),
         *([_ms(row.measured_milliseconds)] if measured else [])]
        for row in found.rows
    ])  # fmt: skip
    say(
        f"on {found.judged} images ({found.part}); ms: the compiler's estimate for one thread, {machine().name}; "
        "zipped: the same file if it were not packed"
    )


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.2f}"
