"""Measuring this machine: what is read from the times, when it is measured, and once for real."""

import json
import os
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest

from artifacts import artifact
from smallcnn.compiler import calibrate, gauges, machines, targets
from smallcnn.compiler.calibrate import Measured, cache_levels
from smallcnn.errors import FileError
from smallcnn.model.store import save

pytestmark = pytest.mark.skipif(
    find_spec("halide") is None or find_spec("ziglang") is None, reason="needs the 'compile' extra"
)
KIB, MIB = 1 << 10, 1 << 20
MODEL = replace(machines.models()["cortex-a76"], name="a machine of the tests", origin="measured")


# --- what is read from the times ---------------------------------------------------------------------------------


def curve(*levels):
    """Bytes per nanosecond by size, of a machine with these (bytes, bytes per nanosecond)."""
    return {size: next(rate for end, rate in levels if size <= end) for size in gauges.SIZES}


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [(32 * KIB, 512 * KIB, 16 * MIB), (64 * KIB, 512 * KIB, 2 * MIB), (32 * KIB, 256 * KIB, 4 * MIB)],
)
def test_levels_end_where_the_rate_falls(first, second, third):
    found = cache_levels(curve((first, 200.0), (second, 90.0), (third, 40.0), (1 << 40, 10.0)))
    assert found == {
        "first_level_bytes": first,
        "second_level_bytes": second,
        "third_level_bytes": third,
        "second_level_bytes_per_ns": 90.0,
        "third_level_bytes_per_ns": 40.0,
        "memory_bytes_per_ns": 10.0,
    }


def test_a_machine_without_a_third_level():
    found = cache_levels(curve((32 * KIB, 30.0), (MIB, 14.0), (1 << 40, 4.0)))
    assert (found["first_level_bytes"], found["second_level_bytes"]) == (32 * KIB, MIB)
    assert found["third_level_bytes_per_ns"] == found["memory_bytes_per_ns"] == 4.0


def test_a_time_that_was_disturbed_ends_no_level():
    rates = curve((32 * KIB, 200.0), (512 * KIB, 90.0), (16 * MIB, 40.0), (1 << 40, 10.0))
    assert cache_levels(rates | {gauges.SIZES[4]: 20.0, 256 * KIB: 5.0}) == cache_levels(rates)


# --- when it is measured -----------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A new cache, and a measurement that takes no time; its calls are listed, its answer can be changed."""
    calls = []

    def measure(target, report):
        calls.append(target.name)
        answer = measure.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    measure.answer, measure.calls = Measured(MODEL, True), calls
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr(calibrate, "_known", {})
    return measure


def forget():
    """As another process, which knows only the cache."""
    calibrate._known.clear()


def test_it_is_measured_once_and_again_when_asked(measured):
    host = targets.host()
    assert calibrate.of_host(host) == MODEL
    forget()
    assert calibrate.of_host(host) == calibrate.of_host(host) == MODEL
    assert measured.calls == [host.name]
    measured.answer = Measured(replace(MODEL, call_ns=7.0), True)
    assert calibrate.of_host(host, again=True).call_ns == 7
    forget()
    assert calibrate.of_host(host).call_ns == 7
    assert measured.calls == [host.name] * 2


def test_every_level_is_measured_for_itself(measured):
    here = [target for target in map(targets.parse, targets.names()) if targets.runs_here(target)]
    assert targets.host() in here
    for target in here:
        calibrate.of_host(target)
    assert measured.calls == [target.name for target in here]


def aged(folder, hours):
    """Makes the files of a cache older, or of the future."""
    for file in folder.rglob("*.json"):
        os.utime(file, (time.time() - 3600 * hours,) * 2)


def test_a_disturbed_measurement_serves_for_a_day(measured, capsys, tmp_path):
    measured.answer = Measured(MODEL, False)
    host = targets.host()
    assert calibrate.of_host(host) == MODEL
    (line,) = capsys.readouterr().err.splitlines()
    assert "other programs were running" in line
    forget()
    assert calibrate.of_host(host) == calibrate.of_host(host) == MODEL
    assert len(measured.calls) == 1
    for hours, calls in [(23, 1), (25, 2), (-1, 3)]:
        forget()
        aged(tmp_path / "cache", hours)
        assert calibrate.of_host(host) == MODEL
        assert len(measured.calls) == calls


def test_a_quiet_measurement_outlasts_a_disturbed_one(measured):
    host, other = targets.host(), replace(MODEL, call_ns=7.0)
    assert calibrate.of_host(host) == MODEL
    measured.answer = Measured(other, False)
    assert calibrate.of_host(host, again=True) == other
    forget()
    assert calibrate.of_host(host) == MODEL


@pytest.mark.parametrize("error", [FileError("it may hold no programs"), OSError("no space"), RuntimeError("zig")])
def test_without_a_measurement_the_packaged_model_is_used(measured, capsys, error):
    measured.answer = error
    host = targets.host()
    assert calibrate.of_host(host) == calibrate.of_host(host) == machines.packaged(host)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(error) in line
    assert f"planning for {machines.packaged(host).name}" in line
    forget()
    measured.answer = Measured(MODEL, True)
    assert calibrate.of_host(host) == MODEL


def test_a_cache_that_cannot_be_written(measured, tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    assert calibrate.of_host(targets.host()) == calibrate.of_host(targets.host()) == MODEL
    assert len(measured.calls) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_damaged_record_is_measured_again(measured, tmp_path, content):
    calibrate.of_host(targets.host())
    (record,) = (tmp_path / "cache" / "machines").iterdir()
    record.write_bytes(content)
    forget()
    assert calibrate.of_host(targets.host()) == MODEL
    assert json.loads(record.read_bytes())["name"] == MODEL.name


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_measures_alone(measured, smallcnn):
    code, printed, _ = smallcnn("compile", "--calibrate", "--json")
    assert (code, json.loads(printed)) == (0, MODEL.to_json())
    code, printed, _ = smallcnn("compile", "--calibrate")
    assert code == 0
    assert printed.splitlines()[0] == "a machine of the tests (measured)"
    assert "multiply_adds_per_ns" in printed
    assert len(measured.calls) == 2


def test_a_plan_says_which_machine_it_follows(measured, smallcnn, tmp_path):
    save(artifact(), tmp_path / "m.safetensors")
    out = tmp_path / "m.o"
    _, printed, _ = smallcnn("compile", tmp_path / "m.safetensors", "--out", out, "--json")
    found = json.loads(printed)
    assert (found["machine"], found["machine_origin"]) == ("a machine of the tests", "measured")
    _, printed, _ = smallcnn(
        "compile", tmp_path / "m.safetensors", "--out", out, "--explain", "--target", "arm-64-linux"
    )
    assert "planned for Arm Cortex-A72 (estimated: llvm-mca" in printed
    assert len(measured.calls) == 1


def test_mistakes(refused, tmp_path):
    assert "does not run on this machine" in refused("compile", "--calibrate", "--target", "wasm")
    assert "FILE" in refused("compile", "--out", tmp_path / "m.so")
    assert "--out" in refused("compile", tmp_path / "m.safetensors", "--calibrate")


# --- for real ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_this_machine():
    """The first level is as large as the system says; figures that hold for every processor made since 2008."""
    steps = []
    model = calibrate.measure(targets.host(), lambda done, total: steps.append((done, total))).model
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert model.origin == "measured"
    known = os.sysconf("SC_LEVEL1_DCACHE_SIZE") if "SC_LEVEL1_DCACHE_SIZE" in getattr(os, "sysconf_names", {}) else 0
    if known > 0:
        assert 0.5 * known <= model.first_level_bytes <= 1.2 * known
    assert 1 < model.multiply_adds_per_ns * model.multiply_add_latency_ns < 40  # several are in flight
    assert model.second_level_bytes_per_ns >= model.third_level_bytes_per_ns >= model.memory_bytes_per_ns
    assert model.call_ns < model.waking_ns
