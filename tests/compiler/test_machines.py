"""Models of machines: the packaged ones, and their form as JSON."""

import dataclasses
import json
from pathlib import Path

import pytest

from smallcnn.compiler import machines, targets
from smallcnn.compiler.machines import MachineModel
from smallcnn.errors import SmallcnnError

EXAMPLE = machines.models()["zen5-avx512"]


def test_every_target_has_a_model():
    for name in targets.names():
        assert machines.packaged(targets.parse(name)) in machines.models().values()


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("x86-64-linux-avx512", "AMD Zen 5, AVX-512"),
        ("x86-64-linux-vnni", "AMD Zen 5, AVX-512 with VNNI"),
        ("x86-64-windows-avxvnni", "Intel Alder Lake, AVX2"),
        ("windows", "AMD Zen 3, AVX2"),
        ("raspberry-pi-4", "Arm Cortex-A72"),
        ("raspberry-pi-5", "Arm Cortex-A76"),
        ("macos", "Apple M1"),
    ],
)
def test_a_target_gets_a_typical_machine(target, name):
    assert machines.packaged(targets.parse(target)).name == name


# what `llvm-mca` 19 says of loops of multiply-adds and of one sum: multiply-adds a cycle, cycles from one to the next
PREDICTED = {
    "zen4-avx512": (1, 4.01),
    "skylake-avx2": (1.99, 4.01),
    "cortex-a72": (1, 4.04),
    "cortex-a76": (1.99, 4.01),
}


@pytest.mark.parametrize("name", PREDICTED)
def test_estimates_are_the_predicted_cycles_at_the_stated_clock(name):
    model, (a_cycle, cycles) = machines.models()[name], PREDICTED[name]
    clock = float(model.origin.partition(" at ")[2].split()[0])
    assert model.multiply_adds_per_ns == pytest.approx(a_cycle * clock, rel=0.01)
    assert model.multiply_add_latency_ns == pytest.approx(cycles / clock, rel=0.01)


def test_peaks_of_the_processors_that_were_measured():
    """255 GFLOP/s in vectors of 16, 103 in vectors of 8: two operations for each multiply-add."""
    assert machines.models()["zen5-avx512"].multiply_adds_per_ns * 16 * 2 == pytest.approx(255, rel=0.01)
    assert machines.models()["zen3-avx2"].multiply_adds_per_ns * 8 * 2 == pytest.approx(103, rel=0.01)


@pytest.mark.parametrize("model", machines.models().values(), ids=list(machines.models()))
def test_levels_get_slower(model):
    assert model.origin == "measured" or model.origin.startswith(("measured: ", "estimated: "))
    assert model.second_level_bytes_per_ns > model.third_level_bytes_per_ns >= model.memory_bytes_per_ns


def test_json_both_ways():
    assert MachineModel.from_json(json.loads(json.dumps(EXAMPLE.to_json()))) == EXAMPLE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loads_per_ns": 0}, "loads_per_ns must be a number above 0, not 0"),
        ({"loads_per_ns": float("nan")}, "loads_per_ns must be a number above 0, not nan"),
        ({"call_ns": "60"}, "call_ns of a machine must be of type float, not '60'"),
        ({"first_level_bytes": 1.5}, "first_level_bytes of a machine must be of type int, not 1.5"),
        ({"first_level_bytes": 1 << 21}, "at least as large as the one before: 2097152, 1048576"),
        ({"speed": 1.0}, "has the fields"),
    ],
)
def test_records_that_are_refused(change, says):
    with pytest.raises(SmallcnnError, match=says):
        MachineModel.from_json(EXAMPLE.to_json() | change)


def test_a_missing_field_is_refused():
    for field in dataclasses.fields(MachineModel):
        record = {name: value for name, value in EXAMPLE.to_json().items() if name != field.name}
        with pytest.raises(SmallcnnError, match="has the fields"):
            MachineModel.from_json(record)
    with pytest.raises(SmallcnnError, match="not list"):
        MachineModel.from_json([])


def rows():
    """The packaged models as docs/compiler.md shows them."""
    yield (
        "| machine | default for | figures | multiply-adds | latency, ns | loads | broadcasts | products of bytes | "
        "bytes made of sums | bytes side by side | caches |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for model in machines.models().values():
        found = [target for name in targets.names() if machines.packaged(target := targets.parse(name)) == model]
        levels = dict.fromkeys(
            target.platform if target.platform.endswith("osx") else target.level.replace("simd128", "wasm")
            for target in found
        )
        sizes = (model.first_level_bytes, model.second_level_bytes, model.third_level_bytes)
        yield (
            f"| {model.name} | {', '.join(levels) or '-'} | {model.origin} | {model.multiply_adds_per_ns:g} | "
            f"{model.multiply_add_latency_ns:g} | {model.loads_per_ns:g} | {model.broadcasts_per_ns:g} | "
            f"{model.dots_per_ns:g} | {model.requantized_per_ns:g} | {model.woven_per_ns:g} | "
            f"{' / '.join(f'{size >> 10:,}' for size in sizes)} KiB |"
        )


def test_the_docs_show_every_model():
    page = Path(__file__).parents[2] / "docs" / "compiler.md"
    assert "\n".join(rows()) in page.read_text(encoding="utf-8")
