"""Training speed of PyTorch's layers, of channels last, and of our kernels (`smallcnn.train.fast`).

    python benchmarks/training.py --model mobilenet_v2:small_input=true --resolution 32 --batch 64 --threads 2
    python benchmarks/training.py --model mobilenet_v1 --resolution 224 --batch 16 --threads 2

One network, batch and optimizer (SGD with momentum, float32). Steps of each alternate, so that other work slows all
alike. Losses and gradients must agree before anything is timed. `--compiled` adds torch.compile, which takes minutes to
start.
"""

import copy
import time
from collections.abc import Callable
from statistics import median

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smallcnn
from smallcnn import zoo
from smallcnn.module import GraphModule, to_module
from smallcnn.system.cpu import cpu_name
from smallcnn.train.fast import accelerate

EAGER, CHANNELS_LAST, FAST, COMPILED = "eager", "eager, channels last", "smallcnn.train.fast", "torch.compile"


@click.command()
@click.option("--model", default="mobilenet_v2:small_input=true", show_default=True)
@click.option("--resolution", default=32, show_default=True)
@click.option("--batch", default=64, show_default=True, help="images per step")
@click.option("--threads", default=1, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="total measuring time")
@click.option("--compiled", is_flag=True, help="also time torch.compile")
def main(model: str, resolution: int, batch: int, threads: int, seconds: float, compiled: bool) -> None:
    """Time training steps and print a table in Markdown."""
    torch.set_num_threads(threads)
    graph = zoo.parse(model).build(resolution=resolution, classes=10)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, resolution, resolution, generator=generator)
    labels = torch.randint(0, 10, (batch,), generator=generator)
    last = images.contiguous(memory_format=torch.channels_last)
    module = to_module(graph)
    channels_last = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ways: dict[str, Callable[[], None]] = {}
    checked: dict[str, tuple[float, Tensor]] = {}
    for name in (EAGER, CHANNELS_LAST, FAST, *([COMPILED] if compiled else [])):
        own = copy.deepcopy(module if name == EAGER else channels_last)
        function = accelerate(own) if name == FAST else torch.compile(own) if name == COMPILED else own
        given = images if name == EAGER else last
        checked[name] = _differentiate(own, function, given, labels)
        ways[name] = _training(own, function, given, labels)
    _check(checked)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for step in (*ways.values(), *ways.values()):
        step()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(times[EAGER]) < 5:
        for name, step in ways.items():
            begun = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begun)
    flops = 6 * batch * smallcnn.profile(graph).mult_adds  # forward once, backward twice
    print(f"{model}, {resolution}x{resolution}, batch {batch}, float32, {threads} thread(s) of {cpu_name()}, ")
    print(f"PyTorch {torch.__version__}, {len(times[EAGER])} steps each\n")
    print("| | images/s, median | lowest to highest | GFLOP/s | of eager |\n|---|---|---|---|---|")
    for name, found in times.items():
        middle = median(found)
        print(
            f"| {name} | {batch / middle:.1f} | {batch / max(found):.1f} to {batch / min(found):.1f} "
            f"| {flops / middle / 1e9:.1f} | {median(times[EAGER]) / middle:.2f} |"
        )


def _differentiate(
    module: GraphModule, function: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> tuple[float, Tensor]:
    """Loss, and all gradients in one vector; every way draws the same dropout masks."""
    torch.manual_seed(0)
    loss = F.cross_entropy(function(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.cat([_gradient(parameter) for parameter in module.parameters()])
    module.zero_grad()
    return loss.item(), found


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.contiguous().flatten()


def _check(found: dict[str, tuple[float, Tensor]]) -> None:
    loss, gradient = found[EAGER]
    for name, (other_loss, other) in found.items():
        off = ((other - gradient).norm() / gradient.norm()).item()
        if not (
            abs(other_loss - loss) <= 1e-4 * abs(loss) and off <= 0.1
        ):  # values that round to the other side of a ReLU
            raise SystemExit(f"{name}: loss {other_loss} instead of {loss}, gradients off by {off:.1e}")
        print(f"{name}: loss {other_loss:.6f}, gradients within {off:.1e} of eager's")


def _training(
    module: GraphModule, function: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(function(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
