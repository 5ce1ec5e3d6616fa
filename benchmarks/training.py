"""Training speed of PyTorch's layers in float32 and bfloat16, and of our kernels: the tables of docs/training.md.

    python benchmarks/training.py --threads 2
    python benchmarks/training.py --threads 2 --network "mobilenet_v1 at 224, batch 16" --compiled
    torchrun --nproc-per-node 2 benchmarks/training.py --threads 1

A step is forward, loss, backward and update (SGD with momentum). Steps of all alternate, so that other programs slow
all alike. Losses and gradients are compared with those of eager float32 before anything is timed. The last column is
what `smallcnn train` would take for a long run. Under torchrun the processes share each batch, and the first one
prints. A network's row in the record of this processor is replaced.
"""

import copy
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smallcnn
from records import Records, Row, load
from smallcnn import zoo
from smallcnn.ir.graph import Graph
from smallcnn.module import GraphModule, to_module
from smallcnn.study.resnet import resnet20
from smallcnn.train.choice import Extent, choose
from smallcnn.train.compute import KERNELS, TORCH, Computation
from smallcnn.train.distributed import joined, wrap
from smallcnn.train.ranks import Ranks

NETWORKS = ("mobilenet_v2 at 160, batch 64", "mobilenet_v1:width=0.5 at 128, batch 64", "resnet20 at 32, batch 64")
KEYS = ("network", "processes", "threads")
EAGER = "torch float32, NCHW"
_BFLOAT16 = Computation("torch", bfloat16=True)
_LONG = 10**6  # images

_TOLERANCES = {False: (1e-4, 0.1), True: (0.02, 1.0)}
"""Of the loss and of the gradient, relative to eager float32, by bfloat16.

In float32, some values round to the other side of a ReLU, which moves gradients of early layers by several per cent.
bfloat16 rounds each layer's values by 2^-9, and after fifty layers with batch norm much of an early layer's gradient is
rounding: MobileNetV2 with random weights and labels differs from float32 by half of the gradient's length. A wrong
gradient, as long as the right one and independent of it, would be off by 1.4.
"""


@dataclass(frozen=True)
class Way:
    """A computation, and whether images and weights have channels last."""

    computation: Computation
    channels_last: bool = True


WAYS = {
    EAGER: Way(TORCH, channels_last=False),
    "torch float32": Way(TORCH),
    "torch bfloat16": Way(_BFLOAT16),
    "kernels": Way(KERNELS),
}


@click.command()
@click.option(
    "--network", "networks", multiple=True, default=NETWORKS, show_default=True, metavar='"MODEL at SIZE, batch N"'
)
@click.option("--threads", default=1, show_default=True, help="compute threads of each process")
@click.option("--seconds", default=30.0, show_default=True, help="measuring time for each network")
@click.option("--compiled", is_flag=True, help="also time torch.compile, which takes minutes to start")
@click.option(
    "--json",
    "record",
    type=click.Path(path_type=Path),
    help="record  [default: this processor's in benchmarks/records]",
)
def main(networks: Sequence[str], threads: int, seconds: float, compiled: bool, record: Path | None) -> None:
    """Time training steps, keep the record, and print a table in Markdown."""
    torch.set_num_threads(threads)
    ways = WAYS | ({"torch.compile": Way(Computation("compile"))} if compiled else {})
    kept = Records("training", keys=KEYS, path=record)
    rows = []
    with joined("cpu") as (ranks, _):
        for network in networks:
            row = measure(network, ways, seconds, ranks)
            rows.append(kept.put(row) if ranks.first else row)
    if ranks.first:
        print(table(rows), f"\n{ranks.count} x {threads} thread(s) of {kept.machine['processor']}")


def measure(network: str, ways: Mapping[str, Way], seconds: float, ranks: Ranks) -> Row:
    """The row of a network. Raises SystemExit if a loss or gradient is wrong."""
    found = re.fullmatch(r"(\S+) at (\d+), batch (\d+)", network)
    if not found:
        raise click.BadParameter(f"{network!r} is not like {NETWORKS[0]!r}")
    size, batch = int(found[2]), int(found[3])
    graph = build(found[1], size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)[list(ranks.slice(batch))]
    labels = torch.randint(0, 10, (batch,), generator=generator)[list(ranks.slice(batch))]
    module = to_module(graph)
    trainees = {name: Trainee(module, way, images, labels, ranks) for name, way in ways.items()}
    if ranks.first:
        click.echo(f"{network}: {check(trainees)}", err=True)
    with load() as seen:
        times = timed({name: trainee.step for name, trainee in trainees.items()}, seconds, ranks)
    del trainees
    extent = Extent(images=_LONG, batch=len(images))
    plain = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    choice = choose("auto", "auto", plain, (size, size, 3), torch.device("cpu"), extent, ranks)
    return {
        "network": network,
        "processes": ranks.count,
        "threads": torch.get_num_threads(),
        "flops": 6 * batch * smallcnn.profile(graph).mult_adds,  # forward once, backward twice
        "steps": len(times[EAGER]),
        "images_per_second": {
            name: {"median": batch / median(found), "lowest": batch / max(found), "highest": batch / min(found)}
            for name, found in times.items()
        },
        "auto": str(choice.computation),
        "why": choice.reason,
        "load": seen,
    }


def build(model: str, size: int) -> Graph:
    """The network of this name, with ten classes."""
    return resnet20(resolution=size) if model == "resnet20" else zoo.parse(model).build(resolution=size, classes=10)


class Trainee:
    """A copy of the network that trains in one way, after its first loss and gradient."""

    def __init__(self, module: GraphModule, way: Way, images: Tensor, labels: Tensor, ranks: Ranks) -> None:
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.way, self.labels, self.images = way, labels, images.contiguous(memory_format=layout)
        self.module = copy.deepcopy(module).to(memory_format=layout)  # type: ignore[call-overload]
        network = way.computation.network(self.module)
        self.network = network if ranks.alone else wrap(self.module, network)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01, momentum=0.9)
        torch.manual_seed(0)  # every way draws the same dropout masks
        self.loss = self._differentiate()
        self.gradient = torch.cat([_gradient(parameter) for parameter in self.module.parameters()])

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        self._differentiate()
        self.optimizer.step()

    def _differentiate(self) -> float:
        with self.way.computation.autocast(torch.device("cpu")):
            logits = self.network(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.contiguous().flatten()


def check(trainees: Mapping[str, Trainee]) -> str:
    """Compares losses and gradients with eager float32. Raises SystemExit if one is wrong."""
    exact, lines = trainees[EAGER], []
    for name, trainee in trainees.items():
        of_loss, of_gradient = _TOLERANCES[trainee.way.computation.bfloat16]
        loss_off = abs(trainee.loss - exact.loss) / abs(exact.loss)
        off = ((trainee.gradient - exact.gradient).norm() / exact.gradient.norm()).item()
        if not (loss_off <= of_loss and off <= of_gradient):
            raise SystemExit(f"{name}: loss {trainee.loss} instead of {exact.loss}, gradient off by {off:.1e}")
        lines.append(f"{name} loss {trainee.loss:.5f}, gradient off by {off:.1e}")
    return "; ".join(lines)


def timed(steps: Mapping[str, Callable[[], None]], seconds: float, ranks: Ranks) -> dict[str, list[float]]:
    """Seconds of each way's steps in turn, for so many seconds and at least five times."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    started = time.perf_counter()
    while ranks.from_first(time.perf_counter() - started < seconds or len(times[EAGER]) < 5):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begun)
    return times


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Images per second, median (lowest to highest), as Markdown."""
    names = list(rows[0]["images_per_second"])
    lines = [f"| network | {' | '.join(names)} | auto |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        rates = [row["images_per_second"][name] for name in names]
        cells = [f"{rate['median']:.0f} ({rate['lowest']:.0f} to {rate['highest']:.0f})" for rate in rates]
        lines.append(f"| {row['network']} | {' | '.join(cells)} | {row['auto']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
