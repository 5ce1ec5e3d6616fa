"""One run in several processes, as torchrun starts them.

    torchrun --nproc-per-node 2 -m smallcnn train ...

Each process takes its share of every batch (`ranks`); torch's DistributedDataParallel averages their gradients,
`sync_norm` the statistics of batch norms. Another launcher sets the same environment variables as torchrun: RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

import faulthandler
import gc
import os
import re
import socket
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import cast
from uuid import uuid4
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from smallcnn.errors import DataError, SmallcnnError
from smallcnn.train.device import pick_device
from smallcnn.train.ranks import Ranks
from smallcnn.train.stopping import end_by_itself
from smallcnn.train.sync_norm import synchronise

_PATIENCE = timedelta(minutes=30)  # torch's own: until all processes have started, and for a slow one later
_CONNECTING = timedelta(seconds=30)  # once all have started
_ASKING = 0.05  # seconds
_LEAVING = 60.0  # seconds; it takes a quarter of one, on a busy machine a few

_wrapped: WeakSet[DistributedDataParallel] = WeakSet()


def wrap(module: nn.Module) -> nn.Module:
    """`module`, its gradients averaged over the processes after each backward pass and its norms synchronised."""
    synchronise(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its heir is too new
        network = DistributedDataParallel(_Whole(module), find_unused_parameters=True, broadcast_buffers=False)
    _wrapped.add(network)
    return network


def gradients_later(network: object) -> AbstractContextManager[None]:
    """Inside, a wrapped module's gradients only add up in each process."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """This process among those that torchrun started, if it did, and what it computes on (see `pick_device`).

    Networks wrapped inside can no longer be used outside. Raises SmallcnnError, in each process that is left, when one
    of them is lost meanwhile. After any error of several processes SIGTERM is ignored (see `end_by_itself`).
    """
    if _alone():
        yield Ranks(), pick_device(device)
        return
    ranks = Ranks(_number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK"))
    if ranks.number >= ranks.count:
        raise SmallcnnError(f"RANK {ranks.number} of WORLD_SIZE {ranks.count}; ranks count from 0")
    lost = None
    try:
        _meet(ranks)
        with ranks.together():
            on = _own_device(device, ranks.local)
        yield ranks, on
    except BaseException as error:
        end_by_itself()
        lost = _loss(error)
        _forget(error)
        if lost is None:
            raise
    finally:
        _leave()
    if lost is not None:
        raise SmallcnnError(
            f"process {ranks.number} of {ranks.count} lost another one of this run, or cannot reach it: {lost}"
        )


def _loss(error: BaseException) -> str | None:
    """What torch says of another process that is gone; None if `error` is something else."""
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        said, _, _advice = re.sub(r"^\[\S+\] ", "", str(error)).partition(". This is typically")  # without its source
        return " ".join(said.split())
    return None


def _forget(error: BaseException) -> None:
    """Lets go of what the functions that it ended were exchanging."""
    at: BaseException | None = error
    while at is not None:
        traceback.clear_frames(at.__traceback__)
        at = at.__context__


def _meet(ranks: Ranks) -> None:
    """Waits for the other processes, and connects with them."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=_meeting_point(ranks), rank=ranks.number, world_size=ranks.count, timeout=_CONNECTING
    )
    _set_pg_timeout(_PATIENCE)


def _leave() -> None:
    """Takes the connections down, and their threads, while the interpreter is whole.

    Whatever lets go of a connection last ends its threads and waits for them, and they may need the interpreter to free
    a tensor. DDP's reducer would wait with the interpreter's lock in hand, for ever, so it goes first. A thread that
    outlives the interpreter aborts the process. Should it hang nevertheless, the process ends after `_LEAVING` seconds
    with the stacks of its threads.
    """
    faulthandler.dump_traceback_later(_LEAVING, exit=True, file=2)
    try:
        for network in list(_wrapped):
            vars(network).pop("logger", None)  # it holds the reducer
            vars(network).pop("reducer", None)
        _wrapped.clear()
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()
    finally:
        faulthandler.cancel_dump_traceback_later()


def is_first() -> bool:
    """Whether this process is the only one of its run, or the one that writes files and talks to the user."""
    return _alone() or _number("RANK") == 0


def restarted() -> bool:
    """Whether torchrun started this process anew because one was lost: the run then goes on by itself."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def decoding_threads() -> int:
    """Threads for each process of this machine to decode with."""
    return max(1, min((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 8))


def _meeting_point(ranks: Ranks) -> Store:
    """Where the processes tell each other their addresses, once all have come.

    torchrun's place outlives a restart, and torch 2.13 may then take the addresses of processes that are gone for those
    of the new ones, and fail or wait for ever (pytorch issue 135712). A prefix that the first process makes up and
    every other one has answered keeps them apart. Without torchrun's place the first process has one of its own.
    """
    own = ranks.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = _variable("MASTER_ADDR"), _number("MASTER_PORT")
    name, end = uuid4().hex, time.monotonic() + _PATIENCE.total_seconds()
    if not own:
        _reach(address, port, end)
    place = TCPStore(address, port, None, own, timeout=_PATIENCE, wait_for_workers=False)

    def said(key: str, by: int) -> str:
        """What process `by` has written; asked for again and again, as torch's own waiting cannot be interrupted."""
        while not place.check([key]):
            if time.monotonic() > end:
                raise dist.DistStoreError(f"process {by} has not come in {_PATIENCE.total_seconds() / 60:.0f} minutes")
            time.sleep(_ASKING)
        return place.get(key).decode()

    if ranks.first:
        place.set("smallcnn", name)
        answers = [said(f"{name}/{other}", other) for other in range(1, ranks.count)]
        place.set(f"{name}/all", " ".join(answers))
        return PrefixStore(name, place)
    while True:
        called = said("smallcnn", 0)  # perhaps by a process that is gone: it will not know our name
        place.set(f"{called}/{ranks.number}", name)
        while said("smallcnn", 0) == called:
            if place.check([f"{called}/all"]) and name in place.get(f"{called}/all").decode().split():
                return PrefixStore(called, place)
            if time.monotonic() > end:
                raise dist.DistStoreError(f"not all have come in {_PATIENCE.total_seconds() / 60:.0f} minutes")
            time.sleep(_ASKING)


def _reach(address: str, port: int, end: float) -> None:
    """Waits until somebody listens there; torch's own waiting cannot be interrupted."""
    while True:
        try:
            socket.create_connection((address, port), timeout=_CONNECTING.total_seconds()).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise dist.DistNetworkError(f"nobody answers at {address}:{port} ({error.strerror})") from error
            time.sleep(_ASKING)


def _alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _variable(name: str) -> str:
    """What the launcher has put into the environment."""
    if not os.environ.get(name):
        raise SmallcnnError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, so there are several processes, but {name} is not set; "
            "start them with torchrun, or unset WORLD_SIZE"
        )
    return os.environ[name]


def _number(name: str) -> int:
    if not (text := _variable(name)).isdecimal():
        raise SmallcnnError(f"{name} in the environment is {text!r}; it must be a number, as torchrun sets it")
    return int(text)


def _own_device(name: str, local: int) -> torch.device:
    """Each process's own GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise DataError(f"several processes compute on --device cpu or cuda (each on its own), not {name}")
    have = torch.cuda.device_count()
    if local >= have:
        raise DataError(f"process {local} of this machine has no GPU: there are {have}; start as many, or --device cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


class _Whole(nn.Module):
    """A network and a parameter that it does not use.

    DDP has to look for unused parameters at every step: there are some while only the last layer learns, and it would
    else put the gradients into another order after the first step, so that three or more processes would add them in
    another order once a run is resumed. But if it ever finds none, it says so on stderr.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.unused = nn.Parameter(torch.zeros((), device=next(module.parameters()).device))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))
