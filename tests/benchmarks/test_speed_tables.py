import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

import tables
from engine_rows import record, row

DOCS = Path(__file__).parents[2] / "docs"


X = record(
    "X",
    row("mobilenet_v1", ours=(10, 8), peers=[(12, 10), (11, 12)]),
    row("mobilenet_v2", ours=(4, 4), peers=[(9, 5), (10, 6)], mult_adds=3 * 10**8),
    row("mobilenet_v2", 2, ours=(3, 2), peers=[(6, 3), (9, 9)], mult_adds=3 * 10**8),
)
Y = record("Y", row("mobilenet_v2", ours=(5, 5), peers=[(5, 4)], mult_adds=3 * 10**8))


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_pages_say_what_the_records_say(page):
    text = page.read_text("utf-8")
    assert tables.filled(text, tables.committed()) == text, "run: python benchmarks/tables.py"


def test_the_pages_have_the_tables():
    mark = "<!-- begin: python benchmarks/tables.py {} -->\n\n"
    assert mark.format("speed") + "| network |" in (DOCS / "compiler.md").read_text("utf-8")
    assert mark.format("processors") + "## " in (DOCS / "speed.md").read_text("utf-8")


def test_a_processor_adds_columns():
    head, _, *body = cells(tables.speed([X, Y]))
    assert head == ["network", "Mult-Adds", "X, one thread", "X, two threads", "Y, one thread"]
    assert body == [
        ["mobilenet_v1", "100.0 M", "1.10 (1.25)", "", ""],  # 11 / 10, 10 / 8
        ["mobilenet_v2", "300.0 M", "2.25 (1.25)", "2.00 (1.50)", "1.00 (0.80)"],
        # the roots of 1.1 * 2.25 and of 1.25 * 1.25
        ["geometric mean", "", "**1.57** (1.25)", "**2.00** (1.50)", "**1.00** (0.80)"],
    ]


def test_the_chart_is_what_the_records_say():
    assert (DOCS / "speed.svg").read_text("utf-8") == tables.drawn(tables.committed()), (
        "run: python benchmarks/tables.py"
    )


def test_bars_are_as_long_as_the_ratios():
    drawn = ElementTree.fromstring(tables.drawn([X, Y]))
    rectangles = [one.attrib for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    bars = [float(one["width"]) for one in rectangles if one["width"] not in ("100%", "12", "2")]
    # MobileNet v1 on X; MobileNetV2 on one thread of X, on two, and on Y, whose bar is as long as that of its peer
    np.testing.assert_allclose(bars, np.multiply([1.1, 2.25, 2, 1], bars[3]), rtol=1e-3)
    words = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"X, two threads", "mobilenet_v1", "1.10, 10 ms", "2.25, 4 ms"} <= set(words)


def test_times_of_an_engine_that_is_not_installed_are_blank():
    _, _, line, _ = cells(tables.times(Y.rows))
    assert line == ["mobilenet_v2", "5.000 (5.000 - 10.000)", "5.000 (4.000 - 10.000)", "", "1.00 (0.80)", "50%"]


def test_networks_of_bytes_have_tables_of_their_own():
    """LiteRT, which runs TensorFlow's files only, counts as a peer there."""
    zoo = row("mobilenet_v2 in int8", ours=(2, 1), peers=[(3, 2), (5, 5)])
    file = row("mobilenet_v2_1.0_224_quant.tflite", ours=(2, 1), peers=[(4, 4), (6, 6)])
    file["engines"]["litert"] = {"median_ms": 3, "min_ms": 2, "max_ms": 5, "p90_ms": 4, "runs": 9}
    found = cells(tables.processors([record("Z", *X.rows, zoo, file)]))
    assert ["mobilenet_v2 in int8", *["2.000 (1.000 - 4.000)", "3.000 (2.000 - 6.000)", "5.000 (5.000 - 10.000)"],
            "1.50 (2.00)", "50%"] in found  # fmt: skip
    assert ["network", "compiled", "onnxruntime", "openvino", "litert", "times as fast", "of peak"] in found
    assert ["mobilenet_v2_1.0_224_quant.tflite", "2.000 (1.000 - 4.000)", "4.000 (4.000 - 8.000)",
            "6.000 (6.000 - 12.000)", "3.000 (2.000 - 5.000)", "1.50 (2.00)", "50%"] in found  # fmt: skip
    assert cells(tables.speed([record("Z", *X.rows, zoo, file)])) == cells(tables.speed([record("Z", *X.rows)]))


def test_small_networks_in_mult_adds_per_second():
    assert tables.small(X, 1) == ""  # MobileNetV2 alone is one of the nine
    small = row("mobilenet_v2:width=0.25", ours=(1, 1), peers=[(2, 2), (4, 4)], mult_adds=6 * 10**7)
    _, _, first, second = cells(tables.small(record("Z", *X.rows, small), 1))
    # 6e7 in 1 ms are 60 G/s; MobileNetV2's 3e8 in 4 ms are 75
    assert first == ["mobilenet_v2:width=0.25", "60.0 M", "60.0", "30.0", "15.0", "80%", "2.00 (2.00)", "50%"]
    assert second == ["mobilenet_v2", "300.0 M", "75.0", "33.3", "30.0", "100%", "2.25 (1.25)", "50%"]


def test_an_engine_that_answers_wrongly_has_no_time():
    one = row("mobilenet_v1", ours=(10, 8), peers=[(12, 10), (11, 12)])
    del one["engines"]["openvino"]
    one["wrong"] = ["openvino"]
    head, _, body, _ = cells(tables.times([one]))
    assert dict(zip(head, body, strict=True))["openvino"] == "wrong"
    assert dict(zip(head, body, strict=True))["times as fast"] == "1.20 (1.25)"


def test_other_conditions_next_to_the_usual_one():
    assert tables.conditions(X, 1) == ""
    tuned = row("mobilenet_v1", ours=(5, 5), peers=[(10, 10)], plan="tuned")
    busy = row("mobilenet_v2", ours=(5, 5), peers=[(6, 6)], busy=True)
    head, _, *body = cells(tables.conditions(record("Z", *X.rows, tuned, busy), 1))
    assert head == ["network", "default", "default, busy", "tuned"]
    assert body == [
        ["mobilenet_v1", "1.10 (1.25)", "", "2.00 (2.00)"],
        ["mobilenet_v2", "2.25 (1.25)", "1.20 (1.20)", ""],
        ["geometric mean", "**1.57** (1.25)", "**1.20** (1.20)", "**2.00** (2.00)"],
    ]
    assert cells(tables.speed([record("Z", tuned, busy, *X.rows)])) == cells(tables.speed([record("Z", *X.rows)]))


def test_a_section_tells_machine_costs_and_load():
    text = tables.processors([X, Y])
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## X", "## Y"]
    about = " ".join(tables.about(X).split())
    assert about == (
        "2 cores, AVX2, L2 1,024 KiB, virtual machine, Linux 6.1. halide 21.0.0. Measured 2026-11-29, commit abc. "
        "Other programs and machines used up to 3 % of the cores' time."
    )
    costs = ["3.0 MB / 3.0 MB", "2.0 kB / 2.0 kB", "1.0 MB / 1.0 MB", "12.0 / 12.0", "4.0 (17 of 20)"]
    assert ["mobilenet_v1", *costs] in cells(text)


def test_the_first_release_on_its_machine():
    """The means as docs/compiler.md published them; the second of two threads from times of three decimals."""
    zen3 = next(one for one in tables.committed() if one.machine["processor"] == "AMD EPYC (Zen 3)")
    if any("note" not in row for row in zen3.rows):
        pytest.skip("measured again")
    for threads, medians, least in ((1, 1.30, 1.24), (2, 1.50, 1.31)):
        shown = tables.mean_lead(zen3.some("nine", threads)).replace("*", "").strip(")").split(" (")
        assert [float(one) for one in shown] == pytest.approx([medians, least], abs=0.0101)


def test_the_command_checks_and_writes(tmp_path, monkeypatch):
    for name in ("compiler.md", "speed.svg"):
        shutil.copy(DOCS / name, tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    page = tmp_path / "compiler.md"
    right = page.read_text("utf-8")
    assert CliRunner().invoke(tables.main, ["--check"]).exit_code == 0
    page.write_text(right.replace("| geometric mean |", "| mean |"), "utf-8")
    failed = CliRunner().invoke(tables.main, ["--check"])
    assert failed.exit_code == 1
    assert "not what the records say: compiler.md" in failed.output
    assert CliRunner().invoke(tables.main, []).exit_code == 0
    assert page.read_text("utf-8") == right
