"""Functions run in processes of their own, together as torchrun would start them, which tests may kill.

A server that has imported everything is forked for each: a fresh interpreter would take seconds to import torch.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

import machine

if "forkserver" not in multiprocessing.get_all_start_methods():
    pytest.skip("needs processes that can be forked", allow_module_level=True)

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["smallcnn.train.run", "kornia.enhance", "torch._dynamo", "torch.utils.tensorboard", "safetensors.torch", "sympy"]
)


class Processes:
    """`count` processes that call `function(*args)`; what they print goes to `said`, a file for each."""

    def __init__(self, folder: Path, count, function, *args, threads=1):
        folder.mkdir(parents=True, exist_ok=True)
        self.said = [folder / f"said{number}.txt" for number in range(count)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.members = [
            _SERVER.Process(target=_work, args=(number, count, port, said, threads, function, args))
            for number, said in enumerate(self.said)
        ]
        for member in self.members:
            member.start()

    def running(self):
        return all(member.is_alive() for member in self.members)

    def finish(self, seconds=120):
        """Waits for the end: (exit codes, what each said). What has not ended then says where it is, and fails."""
        end = time.monotonic() + seconds
        for member in self.members:
            member.join(max(0, end - time.monotonic()))
        hanging = [number for number, member in enumerate(self.members) if member.is_alive()]
        for number in hanging:
            os.kill(self.members[number].pid, signal.SIGABRT)  # `_work` has it print all stacks
        for member in self.members:
            member.join(10)
            member.kill()
        said = [path.read_text() if path.is_file() else "" for path in self.said]
        assert not hanging, f"still running after {seconds} seconds: {hanging}\n" + "\n".join(said)
        return [member.exitcode for member in self.members], said


def together(folder, count, function, *args, threads=1):
    """The same, waiting for them: what each said. They must end well."""
    codes, said = Processes(folder, count, function, *args, threads=threads).finish()
    assert codes == [0] * count, "\n".join(said)
    return said


def _work(number, count, port, said, threads, function, args):
    import torch

    from smallcnn.errors import SmallcnnError

    to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(to, 1)
    os.dup2(to, 2)
    faulthandler.enable(2)
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    machine.follow()
    machine.forget_kernels()
    torch.set_num_threads(threads)
    try:
        function(*args)
    except SmallcnnError as error:  # as the command does
        print(f"smallcnn: {error}", file=sys.stderr)
        sys.exit(2)
