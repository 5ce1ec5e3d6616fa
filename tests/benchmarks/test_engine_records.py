import os
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import engines
import tables
from engine_rows import row
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.model.kinds import read


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command; `run.measured` lists what it measured. Figures are made up."""
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    measured = []

    def measure(model, threads, plan, busy, seconds):
        measured.append((model, threads, plan, busy))
        return row(model, threads, ours=(1.5, 1), peers=[(2, 2), (3, 3)], plan=plan, busy=busy)

    monkeypatch.setattr(engines, "measure", measure)

    def invoke(*words):
        done = CliRunner().invoke(engines.main, [*words, "--record", str(tmp_path / "record.json")])
        assert done.exit_code == 0, done.output
        return done.output

    invoke.measured = measured
    return invoke


def test_rows_are_kept_and_an_interrupted_run_resumes(run):
    assert "| mobilenet_v2 | 1.500 (1.000 - 3.000) |" in run("mobilenet_v2")
    run("mobilenet_v2", "effnet_cifar", "--resume")
    assert run.measured == [("mobilenet_v2", 1, "default", False), ("effnet_cifar", 1, "default", False)]
    run("mobilenet_v2")
    assert run.measured[2:] == [("mobilenet_v2", 1, "default", False)]


def test_conditions_are_rows_of_their_own(run, tmp_path):
    for words in ((), ("--threads", "2"), ("--plan", "tuned"), ("--busy",)):
        run("mobilenet_v2", *words)
    found = engines.Records("engines", keys=engines.KEYS, path=tmp_path / "record.json").rows
    assert [(one["threads"], one["plan"], one["busy"]) for one in found] == [
        (1, "default", False),
        (2, "default", False),
        (1, "tuned", False),
        (1, "default", True),
    ]


def test_plans_have_caches_of_their_own(run, tmp_path):
    """A default plan takes what tuning found from the cache."""
    run("mobilenet_v2", "--plan", "tuned")
    assert Path(os.environ["SMALLCNN_CACHE"]) == tmp_path / "cache" / "benchmarks" / "tuned"


def test_small_networks(run):
    run("--models", "small")
    assert [model for model, *_ in run.measured] == [
        "mobilenet_v1:width=0.25 at 128",
        *(f"mobilenet_v2:width={width}" for width in (0.25, 0.35, 0.5)),
        "mobilenet_v2",
        "mobilenet_v2:width=1.4",
    ]


def test_a_network_at_another_resolution(tmp_path):
    engines.export("mobilenet_v1:width=0.25 at 128", tmp_path / "m.onnx")
    graph = read(tmp_path / "m.onnx").graph
    assert graph.input_shape == (128, 128, 3)
    assert round(profile(graph).mult_adds / 1e6) == 14  # the paper's Table 8 and the authors' page: 14 million


def test_the_second_program_runs_on_the_last_core_and_ends():
    with engines.second_program() as program:
        assert program.poll() is None
        if sys.platform == "linux":
            cores = {max(os.sched_getaffinity(0))}
            tasks = list(Path(f"/proc/{program.pid}/task").iterdir())
            assert [os.sched_getaffinity(int(task.name)) for task in tasks] == [cores] * len(tasks)
            stat = Path(f"/proc/{program.pid}/stat")
            before = stat.read_text().rpartition(")")[2].split()[11]  # ticks in user mode
            for _ in range(100):
                time.sleep(0.02)
                if int(stat.read_text().rpartition(")")[2].split()[11]) > int(before):
                    break
            else:
                pytest.fail("it does nothing")
    assert program.returncode == 0


@pytest.mark.long
def test_a_measured_row(tmp_path, monkeypatch):
    """Every engine, once for real."""
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path))
    found = engines.measure("effnet_cifar", 1, "default", busy=True, seconds=0.05)
    assert found["mult_adds"] == profile(zoo.parse("effnet_cifar").build()).mult_adds
    assert {"compiled", "onnxruntime"} <= set(found["engines"])
    for one in found["engines"].values():
        assert 0 < one["min_ms"] <= one["median_ms"] <= one["max_ms"]
        assert one["start_ms"] > one["min_ms"]  # it also opens the file
        assert not {"file", "cpu", "vs_best_peer"} & set(one)
    assert found["kernels_cached"] == 0 < found["kernels"]
    assert "| effnet_cifar |" in tables.times([found | {"model": "effnet_cifar"}])
