"""One run in several processes, started by torchrun.

    torchrun --nproc-per-node 2 -m smallcnn train ...

Each process takes its share of every batch (`ranks`); torch's DistributedDataParallel averages the gradients and
`sync_norm` the batch-norm statistics. Another launcher must set the same environment variables as torchrun: RANK,
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
from uuid import uuid4
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from smallcnn.errors import DataError, LostProcess, SmallcnnError
from smallcnn.system.cpu import cores_per_process
from smallcnn.train import exchange
from smallcnn.train.compute import Network
from smallcnn.train.device import pick_device
from smallcnn.train.ranks import Ranks
from smallcnn.train.stopping import end_at_once_if_uncaught, end_by_itself
from smallcnn.train.sync_norm import synchronise

_PATIENCE = timedelta(minutes=30)  # torch's default: for all processes to start, and later for a slow one
_CONNECTING = timedelta(seconds=30)  # once all have started
_ASKING = 0.05  # seconds between polls
_LEAVING = 60.0  # seconds; usually 0.25, a few on a busy machine

_has_met = False
_wrapped: WeakSet[DistributedDataParallel] = WeakSet()


def wrap(module: nn.Module, network: Network | None = None) -> nn.Module:
    """`network` with gradients averaged over the processes after each backward pass and synchronised norms.

    `network` computes the outputs of `module`, by default by calling it. It must look up the module's layers when it is
    called, because this replaces them.
    """
    synchronise(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its replacement is too new
        network = DistributedDataParallel(
            _Whole(module, network or module), find_unused_parameters=True, broadcast_buffers=False
        )
    _wrapped.add(network)
    return network


def gradients_later(network: object) -> AbstractContextManager[None]:
    """A context in which a wrapped module's gradients accumulate in each process, without averaging."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Joins the processes started by torchrun, if any; yields their ranks and the device (see `pick_device`).

    Networks wrapped inside cannot be used outside. If a process is lost, SmallcnnError is raised in each remaining one.
    After any error with several processes SIGTERM is ignored (see `end_by_itself`).
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
        end_at_once_if_uncaught(LostProcess)
        raise LostProcess(
            f"process {ranks.number} of {ranks.count} lost another process of this run, or cannot reach it: {lost}"
        )


def _loss(error: BaseException) -> str | None:
    """Torch's message about another process that is gone; None if `error` is something else."""
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        message, _, _advice = re.sub(r"^\[\S+\] ", "", str(error)).partition(
            ". This is typically"
        )  # without its source
        return " ".join(message.split())
    return None


def _forget(error: BaseException) -> None:
    """Clears the frames of an error's traceback, which hold references to pending exchanges."""
    at: BaseException | None = error
    while at is not None:
        traceback.clear_frames(at.__traceback__)
        at = at.__context__


def _meet(ranks: Ranks) -> None:
    """Waits for the other processes and connects to them."""
    global _has_met  # noqa: PLW0603
    address, port = _variable("MASTER_ADDR"), _number("MASTER_PORT")
    _has_met = True
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        store=_meeting_point(ranks, address, port),
        rank=ranks.number,
        world_size=ranks.count,
        timeout=_CONNECTING,
    )
    _set_pg_timeout(_PATIENCE)
    exchange.connect()


def _leave() -> None:
    """Closes the connections and ends their threads while the interpreter is still running.

    The last reference to a connection ends its threads and waits for them, and they may need the interpreter to free a
    tensor. DDP's reducer would wait forever while holding the GIL, so it goes first. A thread that outlives the
    interpreter aborts the process. If this hangs anyway, the process prints its threads' stacks after `_LEAVING`
    seconds and exits.
    """
    faulthandler.dump_traceback_later(_LEAVING, exit=True, file=2)
    exchange.disconnect()
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


def has_met() -> bool:
    """Whether this process has begun to connect to others of its run."""
    return _has_met


def is_first() -> bool:
    """Whether this process writes files and talks to the user: the only one of its run, or the first."""
    return _alone() or _number("RANK") == 0


def restarted() -> bool:
    """Whether torchrun restarted this process because one was lost; the run then resumes by itself."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def decoding_threads() -> int:
    """Number of decoding threads for each process of this machine."""
    return min(cores_per_process(), 8)


def _meeting_point(ranks: Ranks, address: str, port: int) -> Store:
    """A store in which the processes exchange addresses, once all have arrived.

    torchrun's store outlives a restart, and torch 2.13 may then mistake the addresses of old processes for those of new
    ones, and fail or wait forever (pytorch issue 135712). To keep them apart, the first process makes up a prefix and
    every other process answers it. Without torchrun's store the first process opens its own.
    """
    own = ranks.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    name, end = uuid4().hex, time.monotonic() + _PATIENCE.total_seconds()
    if not own:
        _reach(address, port, end)
    store = TCPStore(address, port, None, own, timeout=_PATIENCE, wait_for_workers=False)

    def read(key: str, by: int) -> str:
        """The value process `by` wrote for `key`. Polls, because torch's own wait cannot be interrupted."""
        while not store.check([key]):
            if time.monotonic() > end:
                minutes = _PATIENCE.total_seconds() / 60
                raise dist.DistStoreError(f"process {by} did not connect within {minutes:.0f} minutes")
            time.sleep(_ASKING)
        return store.get(key).decode()

    if ranks.first:
        store.set("smallcnn", name)
        answers = [read(f"{name}/{other}", other) for other in range(1, ranks.count)]
        store.set(f"{name}/all", " ".join(answers))
        return PrefixStore(name, store)
    while True:
        prefix = read("smallcnn", 0)  # perhaps by an old process that is gone: it will not know our name
        store.set(f"{prefix}/{ranks.number}", name)
        while read("smallcnn", 0) == prefix:
            if store.check([f"{prefix}/all"]) and name in store.get(f"{prefix}/all").decode().split():
                return PrefixStore(prefix, store)
            if time.monotonic() > end:
                minutes = _PATIENCE.total_seconds() / 60
                raise dist.DistStoreError(f"not all processes connected within {minutes:.0f} minutes")
            time.sleep(_ASKING)


def _reach(address: str, port: int, end: float) -> None:
    """Waits until the port accepts connections; torch's own wait cannot be interrupted."""
    while True:
        try:
            socket.create_connection((address, port), timeout=_CONNECTING.total_seconds()).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise dist.DistNetworkError(f"no answer from {address}:{port} ({error.strerror})") from error
            time.sleep(_ASKING)


def _alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _variable(name: str) -> str:
    """An environment variable set by the launcher."""
    if not os.environ.get(name):
        raise SmallcnnError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, which means several processes, but {name} is not set; "
            "start them with torchrun, or unset WORLD_SIZE"
        )
    return os.environ[name]


def _number(name: str) -> int:
    if not (text := _variable(name)).isdecimal():
        raise SmallcnnError(f"the environment variable {name} is {text!r}; it must be a number, as torchrun sets it")
    return int(text)


def _own_device(name: str, local: int) -> torch.device:
    """Each process's own GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise DataError(f"several processes need --device cpu or cuda (a GPU each), not {name}")
    have = torch.cuda.device_count()
    if local >= have:
        raise DataError(
            f"process {local} of this machine has no GPU: there are {have}; start {have}, or use --device cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


class _Whole(nn.Module):
    """A network with the parameters of `module` and an unused one, for DDP.

    DDP must search for unused parameters at every step, for two reasons: some are unused while only the last layer
    learns; and without the search it reorders the gradients after the first step, so three or more processes would add
    them in another order after a resume. The unused parameter avoids DDP's warning on stderr when it finds none.
    """

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__()
        self.module, self.network = module, network
        self.unused = nn.Parameter(torch.zeros((), device=next(module.parameters()).device))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        return self.network(x)
