"""Sums of a few numbers over the processes of one run.

A batch norm needs two in every step, and the step waits for them. gloo passes every message through threads of its own,
which must wake up first: 0.3 ms on two cores of a virtual machine, so 30 ms a step for the 52 norms of MobileNetV2.
Processes of one machine therefore connect to each other by Unix sockets, and read them without sleeping at first:
0.01 ms. Several machines, GPUs and long vectors use torch.distributed.
"""

import select
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_SPIN = 50e-6  # seconds of polling before a process sleeps until the message arrives; waking takes about as long
_LARGEST = 48 << 10  # bytes; a socket's buffer holds two such messages, so a sender does not wait for the reader
_PATIENCE = 30 * 60.0  # seconds, as torch.distributed waits
_CONNECTING = 30.0  # seconds

_sockets: list[socket.socket | None] = []
"""A connection to each other process by rank, None at this one's; empty if there are none."""


def sum_over_processes(values: Tensor) -> None:
    """Replaces the contiguous tensor `values` by its sum over all processes, the same bits in each.

    Raises torch.distributed.DistError or, where gloo is used, RuntimeError if another process is lost.
    """
    if not _sockets or values.device.type != "cpu" or values.nbytes > _LARGEST:
        dist.all_reduce(values)
        return
    rank = _sockets.index(None)
    others = {number: other for number, other in enumerate(_sockets) if other}
    total = values.numpy().reshape(-1)
    everyones = np.empty((len(_sockets), *total.shape), total.dtype)
    everyones[rank] = total
    try:
        for other in others.values():
            other.sendall(everyones[rank].data)
        for number, other in others.items():
            _read(other, everyones[number].data.cast("B"))
    except OSError as error:
        raise dist.DistNetworkError(error.strerror or str(error)) from error
    np.sum(everyones, 0, out=total)


def _read(other: socket.socket, into: memoryview) -> None:
    done, end = 0, time.perf_counter() + _SPIN
    while done < len(into):
        try:
            count = other.recv_into(into[done:], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if time.perf_counter() > end and not select.select([other], [], [], _PATIENCE)[0]:
                raise TimeoutError(f"silent for {_PATIENCE / 60:.0f} minutes") from None
            continue
        if not count:
            raise ConnectionError("Connection closed by peer")
        done += count


def connect() -> None:
    """Connects the processes of the default group to each other, if one machine has them all. Each must call this."""
    if sys.platform == "win32":
        return
    rank, count = dist.get_rank(), dist.get_world_size()
    made = tempfile.mkdtemp(prefix="smallcnn-") if rank == 0 else ""
    given = [made]
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(_CONNECTING)
    sockets: list[socket.socket | None] = [None] * count

    def listen() -> None:
        listener.bind(f"{given[0]}/{rank}")
        listener.listen(count)

    def call_lower_ranks() -> None:
        for number in range(rank):
            sockets[number] = other = socket.socket(socket.AF_UNIX)
            other.connect(f"{given[0]}/{number}")
            other.sendall(rank.to_bytes(4))

    def answer_higher_ranks() -> None:
        for _ in range(rank + 1, count):
            other, _address = listener.accept()
            sockets[int.from_bytes(other.recv(4, socket.MSG_WAITALL))] = other

    try:
        dist.broadcast_object_list(given)
        if all(_everywhere(step) for step in (listen, call_lower_ranks, answer_higher_ranks)):
            _sockets[:] = sockets
    finally:
        listener.close()
        if made:
            shutil.rmtree(made, ignore_errors=True)
        if not _sockets:
            _close(sockets)


def disconnect() -> None:
    """Closes the connections. Processes that wait for this one then raise."""
    _close(_sockets)
    _sockets.clear()


def _everywhere(step: Callable[[], None]) -> bool:
    """Does the step; whether it succeeded in all processes."""
    failures = torch.zeros(1)
    try:
        step()
    except OSError:
        failures += 1
    dist.all_reduce(failures)
    return not failures.item()


def _close(sockets: list[socket.socket | None]) -> None:
    for other in sockets:
        if other:
            other.close()
