"""One run in several processes, as torchrun starts them.

    torchrun --nproc-per-node 2 -m smallcnn train ...

Each process takes its share of every batch (`ranks`); torch's DistributedDataParallel averages their gradients,
`sync_norm` the statistics of batch norms.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.nn.parallel import DistributedDataParallel

from smallcnn.errors import DataError, SmallcnnError
from smallcnn.train.device import pick_device
from smallcnn.train.ranks import Ranks
from smallcnn.train.sync_norm import synchronise

_PATIENCE = timedelta(minutes=30)  # torch's own, until all processes have started
_ASKING = 0.05  # seconds


def wrap(module: nn.Module) -> nn.Module:
    """`module`, its gradients averaged over the processes after each backward pass and its norms synchronised."""
    synchronise(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its heir is too new
        return DistributedDataParallel(_Whole(module), find_unused_parameters=True, broadcast_buffers=False)


def gradients_later(network: object) -> AbstractContextManager[None]:
    """Inside, a wrapped module's gradients only add up in each process."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """This process among those that torchrun started, if it did, and what it computes on (see `pick_device`).

    Raises SmallcnnError in the first process, and ends the others, when one of them is lost meanwhile.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(), pick_device(device)
        return
    ranks = Ranks(int(os.environ["RANK"]), count, int(os.environ["LOCAL_RANK"]))
    on = torch.device("cpu")
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=_meeting_point(ranks), rank=ranks.number, world_size=count,
        )  # fmt: skip
        with ranks.together():
            on = _own_device(device, ranks.local)
        yield ranks, on
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        if not ranks.first:
            raise SystemExit(1) from None
        reason = " ".join(str(error).split())
        raise SmallcnnError(f"lost another process of this run, or cannot reach it ({reason})") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the only one of its run, or the one that writes files and talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def restarted() -> bool:
    """Whether torchrun started this process anew because one was lost: the run then goes on by itself."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def decoding_threads() -> int:
    """Threads for each process of this machine to decode with."""
    return max(1, min((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 8))


def _meeting_point(ranks: Ranks) -> "Store | None":
    """Where the processes tell each other their addresses; None is torch's usual place.

    torchrun's place outlives a restart, and torch 2.13 may then take the addresses of processes that are gone for those
    of the new ones, and fail or wait for ever (pytorch issue 135712). A prefix that the first process makes up and
    every other one has answered keeps them apart.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    place, name = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=_PATIENCE), uuid4().hex
    if ranks.first:
        place.set("smallcnn", name)
        answers = [place.get(f"{name}/{other}").decode() for other in range(1, ranks.count)]
        place.set(f"{name}/all", " ".join(answers))
        return PrefixStore(name, place)
    while True:
        called = place.get("smallcnn").decode()  # perhaps by a process that is gone: it will not know our name
        place.set(f"{called}/{ranks.number}", name)
        while place.get("smallcnn").decode() == called:
            if place.check([f"{called}/all"]) and name in place.get(f"{called}/all").decode().split():
                return PrefixStore(called, place)
            time.sleep(_ASKING)


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
