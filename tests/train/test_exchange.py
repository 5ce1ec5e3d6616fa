"""Sums over processes: through sockets on one machine, else through torch.distributed."""

import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist

from processes import Processes, together
from smallcnn.train import exchange
from smallcnn.train.distributed import joined


def sums(out, connected=True):
    if not connected and os.environ["RANK"] == "1":

        class Unreachable(socket.socket):
            def connect(self, address):
                if self.family == socket.AF_UNIX:
                    raise ConnectionRefusedError("another machine")
                super().connect(address)

        socket.socket = Unreachable
    with joined("cpu") as (ranks, _):
        assert bool(exchange._sockets) is connected
        found = []
        for length in (1, 3, 2561, 100_000):  # the last is longer than a socket's buffer
            values = torch.arange(length, dtype=torch.float64) * 10.0 ** (8 * ranks.number) / 3
            exchange.sum_over_processes(values)
            found.append(values)
        table = torch.full((2, 3), ranks.number + 0.5)
        exchange.sum_over_processes(table)
        found.append(table)
        for theirs in ranks.gather(found):
            assert all(map(torch.equal, theirs, found))
        if ranks.first:
            torch.save(found, out)


@pytest.mark.parametrize("connected", [True, False])
def test_sums_are_the_same_in_all_processes(tmp_path, connected):
    together(tmp_path, 3, sums, tmp_path / "found", connected)
    *vectors, table = torch.load(tmp_path / "found")
    for values in vectors:
        want = torch.arange(len(values), dtype=torch.float64) / 3 * (1 + 1e8 + 1e16)
        torch.testing.assert_close(values, want, rtol=1e-15, atol=0)
    assert torch.equal(table, torch.full((2, 3), 4.5))


def loses_one(how):
    with joined("cpu") as (ranks, _):
        assert exchange._sockets
        values = torch.ones(100)
        exchange.sum_over_processes(values)
        if ranks.number == 2:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise SystemExit(3)
        with pytest.raises(dist.DistError, match=r"Connection|Broken pipe"):
            exchange.sum_over_processes(values)
        raise dist.DistError("as seen")


@pytest.mark.parametrize(("how", "code"), [("killed", -signal.SIGKILL), ("left", 3)])
def test_a_lost_process_is_noticed(tmp_path, how, code):
    codes, said = Processes(tmp_path, 3, loses_one, how).finish(60)
    assert codes == [2, 2, code], said
    assert all("lost another process of this run, or cannot reach it: as seen" in text for text in said[:2])
