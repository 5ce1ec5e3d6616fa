"""A process of a run is killed at any moment: each of the others ends soon, with one line, and never hangs or aborts.

The processes are started by torchrun; by torchrun's agent as a library, which forks them and so needs a tenth of the
time; or by another launcher that sets the same variables and watches nobody. To kill 200 in each way, and see how long
the others took to end:

    pytest -m long tests/train/test_lost_process.py --kills 200 -s
"""

import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from artifacts import colour_photos
from networks import tiny
from processes import Processes
from smallcnn.cli.main import main
from smallcnn.errors import DataError
from smallcnn.train import distributed, loop
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train

LOST = re.compile(r"smallcnn: process \d of \d lost another process of this run, or cannot reach it: .*[a-z].*\n")
SECONDS = 25
"""In which the others must have ended, on however busy a machine; torchrun kills what has not ended in thirty."""
BAD = ("Traceback", "terminate called", "Fatal Python error", "Thread 0x")


def work(data, out, met, compute="torch"):
    meet = distributed._meet

    def meet_and_tell(ranks):
        meet(ranks)
        (met / str(ranks.number)).touch()

    distributed._meet = meet_and_tell
    train(tiny(), data, out, recipe=Recipe(epochs=5, batch_size=6, augment="photo", ema=0.9), compute=compute)


class ByHand:
    """Processes with torchrun's variables, but without anybody who watches them."""

    compute = "torch"

    def __init__(self, folder, data, count):
        self.met = folder / "met"
        self.met.mkdir(parents=True)
        self.run = Processes(folder, count, work, data, folder / "run", self.met, self.compute)
        until(lambda: len(list(self.met.iterdir())) == count)  # before that, nobody knows who is still to come

    def kill(self, number):
        self.run.members[number].kill()

    def ended(self):
        return not any(member.is_alive() for member in self.run.members)

    def finish(self):
        """What each said; all have ended."""
        codes, said = self.run.finish(SECONDS)
        for code, text in zip(codes, said, strict=True):
            assert code == (2 if LOST.search(text) else code), (code, text)
            assert code in (0, 2, -signal.SIGKILL), (code, text)
        return said


class WithKernels(ByHand):
    """The same, computed by our kernels."""

    compute = "kernels"


OPTIONS = ["--resolution", 32, "--epochs", 4, "--batch-size", 6]
MODEL = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"


class Torchrun:
    """Processes that torchrun started and watches."""

    def __init__(self, folder, data, count):
        self.logs = folder / "logs"
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command += ["--redirects", 3, "--log-dir", self.logs, "-m", "smallcnn"]
        command += ["train", MODEL, "--data", data, "--out", folder / "run", *OPTIONS]
        self.said = (folder / "said.txt").open("w+")
        self.run = subprocess.Popen(
            [*map(str, command)], stdout=self.said, stderr=self.said, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        until(lambda: self.ended() or len(self.workers()) == count)

    def workers(self):
        """Process numbers by rank."""
        found = {}
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            for child in Path(f"/proc/{self.run.pid}/task/{self.run.pid}/children").read_text().split():
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                found |= {int(line[5:]): int(child) for line in environment if line.startswith(b"RANK=")}
        return found

    def kill(self, number):
        if process := self.workers().get(number):
            os.kill(process, signal.SIGKILL)

    def ended(self):
        return self.run.poll() is not None

    def finish(self):
        """What each process said; all have ended."""
        try:
            self.run.wait(SECONDS)
        finally:
            self.run.kill()
        self.said.seek(0)
        return self.read(self.said.read())

    def read(self, report):
        assert "SIGABRT" not in report, report
        return [log.read_text() for log in sorted(self.logs.glob("*/attempt_0/*/stderr.log"))]


def agent(folder, count, data):
    """What torchrun does, with functions in place of programs."""
    logs = DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=folder.name, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, start_method="fork", logs_specs=logs,
    )  # fmt: skip
    with suppress(ChildFailedError):
        elastic_launch(config, as_command)(folder, data)


def as_command(folder, data):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a program that torchrun starts does not have its agent's
    pid = folder / "pids" / os.environ["RANK"]
    pid.with_suffix(".part").write_text(str(os.getpid()))
    pid.with_suffix(".part").rename(pid)
    main([*map(str, ["train", MODEL, "--data", data, "--out", folder / "run", *OPTIONS])])


class Agent(Torchrun):
    """Processes that torchrun's agent forked and watches."""

    def __init__(self, folder, data, count):
        self.logs, self.pids = folder / "logs", folder / "pids"
        self.logs.mkdir(parents=True)
        self.pids.mkdir()
        self.run = Processes(folder, 1, agent, folder, count, data)
        until(lambda: self.ended() or len(self.workers()) == count)

    def workers(self):
        return {int(pid.name): int(pid.read_text()) for pid in self.pids.iterdir() if not pid.suffix}

    def kill(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.workers()[number], signal.SIGKILL)

    def ended(self):
        return not self.run.running()

    def finish(self):
        codes, (report,) = self.run.finish(SECONDS)
        assert codes == [0], report
        return self.read(report)


def torn_down(data, out, met, how):
    """Trains, and counts the threads of torch's connections before, within and after a run that ends so."""

    def threads():
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        return sum("gloo" in name for name in names)

    counts = [threads()]
    step = loop.Loop._step

    def step_and_end(self, *args):
        step(self, *args)
        counts.append(threads())
        if how == "error" and self.ranks.number == 1:
            raise ZeroDivisionError("a bug")
        if how == "refused":
            self.ranks.refuse(DataError("no more"))
        if how == "stopped" and self.ranks.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    loop.Loop._step = step_and_end
    try:
        work(data, out, met)
    finally:
        print("threads", counts[0], max(counts), threads(), flush=True)


@pytest.mark.parametrize(
    ("how", "codes"), [("finished", [0, 0]), ("stopped", [0, 0]), ("refused", [2, 2]), ("error", [2, 1])]
)
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_no_connection_outlives_a_run(tmp_path, photos, how, codes):
    met = tmp_path / "met"
    met.mkdir()
    run = Processes(tmp_path, 2, torn_down, photos, tmp_path / "run", met, how)
    found, said = run.finish(60)
    assert found == codes, said
    for text in said:
        before, within, after = map(int, re.search(r"threads (\d+) (\d+) (\d+)", text).groups())
        assert (before, within > 0, after) == (0, True, 0), text
    assert bool(LOST.search(said[0])) == (how == "error")  # the other's traceback is its own


def meets_and_dies(data, out, met):
    """The second process is lost when all have come and none has connected."""
    distributed._CONNECTING = timedelta(seconds=3)
    if os.environ["RANK"] == "1":
        dist.init_process_group = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    work(data, out, met)


def stays_alone(data, out, met):
    """The second process does not come."""
    distributed._PATIENCE = timedelta(seconds=2)
    if os.environ["RANK"] == "0":
        work(data, out, met)


def test_a_process_that_never_comes(tmp_path, photos):
    codes, said = Processes(tmp_path, 2, stays_alone, photos, tmp_path / "run", tmp_path).finish(60)
    assert codes == [2, 0]
    assert said[0].endswith("cannot reach it: process 1 did not connect within 0 minutes\n")


def test_a_process_lost_before_it_has_connected(tmp_path, photos):
    codes, said = Processes(tmp_path, 2, meets_and_dies, photos, tmp_path / "run", tmp_path).finish(60)
    assert codes == [2, -signal.SIGKILL]
    assert LOST.search(said[0])  # after warnings of torch's own


GIVEN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        *(
            (name, "", f"WORLD_SIZE is '2', which means several processes, but {name} is not set; ")
            for name in GIVEN
            if name != "WORLD_SIZE"
        ),
        ("RANK", "2", "RANK 2 of WORLD_SIZE 2; ranks count from 0"),
        ("RANK", "first", "the environment variable RANK is 'first'; it must be a number, as torchrun sets it"),
        ("WORLD_SIZE", "two", "the environment variable WORLD_SIZE is 'two'; it must be a number, as torchrun sets it"),
    ],
)
def test_variables_that_are_wrong(monkeypatch, tmp_path, photos, refused, name, value, line):
    for key, right in GIVEN.items():
        monkeypatch.setenv(key, right)
    monkeypatch.setenv(name, value)
    assert refused("train", MODEL, "--data", photos, "--out", tmp_path / "run").startswith(line)
    assert not (tmp_path / "run").exists()


def until(true):
    end = time.monotonic() + 100
    while not true():
        assert time.monotonic() < end, "the processes do not start"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=20)


def killed(way, tmp_path, photos, kills, seed):
    """Kills one of two or three processes between the beginning and the end of a run, so often; counts what it met."""
    rng = random.Random(seed)
    whole = way(tmp_path / "whole", photos, 2)
    started = time.monotonic()
    until(whole.ended)
    length = time.monotonic() - started
    assert any("epoch" in text for text in whole.finish())
    ends, waited = Counter(), []
    for number in range(kills):
        count = rng.choice([2, 3])
        run = way(tmp_path / str(number), photos, count)
        time.sleep(rng.uniform(0, length))
        victim, over = rng.randrange(count), run.ended()
        run.kill(victim)
        started = time.monotonic()
        said = run.finish()
        waited.append(time.monotonic() - started)
        others = [text for rank, text in enumerate(said) if rank != victim]
        for text in others:
            assert not any(word in text for word in BAD), text
            assert text.count("smallcnn: ") <= 1, text
        told = sum(bool(LOST.search(text)) for text in others)
        ends["over" if over else "said by all" if told == len(others) else "said by some" if told else "unsaid"] += 1
    print(f"\n{way.__name__}: {kills} kills in {length:.1f} s; the others ended after", end=" ")
    print(f"{statistics.median(waited):.2f} s in the middle, {max(waited):.2f} s at most; {dict(ends)}", flush=True)
    return ends


@pytest.mark.parametrize("way", [ByHand, WithKernels])
def test_a_process_killed_a_few_times(tmp_path, photos, way):
    killed(way, tmp_path, photos, 3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("way", [ByHand, WithKernels, Agent, Torchrun])
def test_a_process_killed_many_times(tmp_path, photos, way, request):
    ends = killed(way, tmp_path, photos, request.config.getoption("--kills"), seed=0)
    assert ends["said by all"] + ends["said by some"] > ends.total() / 4  # or the moments are not those of a run


SCRIPT = """
import sys
import smallcnn
smallcnn.train(sys.argv[1], sys.argv[2], sys.argv[3], resolution=32, epochs=500, batch_size=6, device="cpu")
"""


def test_a_script_ends_as_the_command_does(tmp_path):
    data, out = colour_photos(tmp_path / "photos"), tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, MODEL, data, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | shared | {"RANK": str(number), "LOCAL_RANK": str(number)},
        )
        for number in (0, 1)
    ]  # fmt: skip
    try:
        until((out / "last.safetensors").is_file)
        both[1].kill()
        said = both[0].communicate(timeout=SECONDS)[1]
    finally:
        for process in both:
            process.kill()
            process.wait(60)
    assert both[0].returncode == 2, said
    assert LOST.search(said)
    assert not any(bad in said for bad in BAD), said
