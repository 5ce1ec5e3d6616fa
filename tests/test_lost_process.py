"""A process of a run is killed at any moment: each of the others ends soon, with one line, and never hangs or aborts.

The processes are started by torchrun, or by another launcher that sets the same variables. `pytest -m long
tests/test_lost_process.py --kills 200 -s` kills 200 in each way and prints how long the others took to end.
"""

import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from artifacts import colour_photos
from networks import tiny
from processes import Processes
from smallcnn.train import distributed
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train

LOST = re.compile(r"smallcnn: process \d of \d lost another one of this run, or cannot reach it: .*[a-z].*\n")
SECONDS = 20
"""In which the others must have ended; most take less than one. torchrun kills what has not ended in thirty."""
BAD = ("Traceback", "terminate called", "Fatal Python error", "Thread 0x")


def work(data, out, met):
    meet = distributed._meet

    def meet_and_tell(ranks):
        meet(ranks)
        (met / str(ranks.number)).touch()

    distributed._meet = meet_and_tell
    train(tiny(), data, out, recipe=Recipe(epochs=5, batch_size=6, augment="photo", ema=0.9))


class ByHand:
    """Processes with torchrun's variables, but without anybody who watches them."""

    def __init__(self, folder, data, count):
        self.met = folder / "met"
        self.met.mkdir(parents=True)
        self.run = Processes(folder, count, work, data, folder / "run", self.met)
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


class Torchrun:
    """Processes that torchrun started and watches."""

    def __init__(self, folder, data, count):
        self.logs = folder / "logs"
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command += ["--redirects", 3, "--log-dir", self.logs]
        command += ["-m", "smallcnn", "train", "mobilenet_v1:width=0.25,small_input=true,variant=shallow"]
        command += ["--data", data, "--out", folder / "run", "--resolution", 32, "--epochs", 6, "--batch-size", 6]
        self.said = (folder / "said.txt").open("w+")
        self.run = subprocess.Popen(
            [*map(str, command)], stdout=self.said, stderr=self.said, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        until(lambda: self.ended() or len(self.workers()) == count)

    def workers(self):
        """Process numbers by rank."""
        found = {}
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
        """What each process said, but for the one that was killed; all have ended."""
        try:
            self.run.wait(SECONDS)
        finally:
            self.run.kill()
        self.said.seek(0)
        report = self.said.read()
        assert "SIGABRT" not in report, report
        return [log.read_text() for log in sorted(self.logs.glob("*/attempt_0/*/stderr.log"))]


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


def test_a_process_killed_a_few_times(tmp_path, photos):
    killed(ByHand, tmp_path, photos, 3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("way", [ByHand, Torchrun])
def test_a_process_killed_many_times(tmp_path, photos, way, request):
    ends = killed(way, tmp_path, photos, request.config.getoption("--kills"), seed=0)
    assert ends["said by all"] + ends["said by some"] > ends.total() / 4  # or the moments are not those of a run
