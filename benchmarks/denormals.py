"""A network whose activations are denormal against the same one with normal activations: docs/compiler.md.

    python benchmarks/denormals.py --threads 1
    python benchmarks/denormals.py --threads 2

Processors compute with numbers below 1.2e-38 many times slower than with others, unless they take them for zero. Two
networks of one shape differ in the weights of the first two convolutions, which are 1e-20 times as large in the second:
its activations are near 1e-40. Both are timed in turns, in every engine, and a step of training in our kernels.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import click
import numpy as np

from smallcnn import runtime, zoo
from smallcnn.bench.bench import take_turns
from smallcnn.compiler import targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.image.fit import Preprocessing
from smallcnn.ir import ops
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_image
from smallcnn.reference.initial import initial_weights
from smallcnn.system.cpu import cpu_name
from smallcnn.tasks.classification import Classification
from smallcnn.transform.fold import fold

ENGINES = ("compiled", "onnxruntime", "openvino", "torch")
TRAINING = "training kernels"
CLASSES, BATCH = 10, 8


@click.command()
@click.option("--model", default="mobilenet_v1:width=0.5", show_default=True, help="a network of ReLUs")
@click.option("--resolution", default=128, show_default=True)
@click.option("--threads", default=1, show_default=True, help="number of compute threads")
@click.option("--seconds", default=3.0, show_default=True, help="measuring time for each network and engine")
@click.option("--only", multiple=True, type=click.Choice([*ENGINES, TRAINING]), help="instead of all")
def main(model: str, resolution: int, threads: int, seconds: float, only: tuple[str, ...]) -> None:
    """Time both networks and print a table in Markdown."""
    normal = network(model, resolution)
    denormal = shrunk(normal)
    print("| | normal, ms, median (least) | denormal, ms, median (least) | ratio of medians (least) |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as folder:
        for name in only or (*ENGINES, TRAINING):
            if name == "openvino" and find_spec("openvino") is None:
                continue
            if name == TRAINING:
                calls = [step(one, threads) for one in (normal, denormal)]
            else:
                paths = Path(folder) / "normal", Path(folder) / "denormal"
                calls = [run(one, name, threads, path) for one, path in zip((normal, denormal), paths, strict=True)]
            times = take_turns(calls, seconds, lambda done: None)
            cells = [f"{median(taken):.3f} ({min(taken):.3f})" for taken in times]
            ratios = [function(times[1]) / function(times[0]) for function in (median, min)]
            print(f"| {name} | {' | '.join(cells)} | {ratios[0]:.2f} ({ratios[1]:.2f}) |", flush=True)
    print(f"\n{model}, {resolution}x{resolution}, {threads} thread(s) of {cpu_name()}; training in batches of {BATCH}")


def network(name: str, resolution: int) -> Model:
    """Untrained, without batch norm, which would make its activations normal again in training."""
    graph = zoo.parse(name).build(resolution=resolution, classes=CLASSES)
    graph, weights = fold(graph, initial_weights(graph))
    dense = next(node.name for node in graph if isinstance(node.op, ops.Dense))
    weights[f"{dense}.bias"] = np.linspace(-1, 1, CLASSES, dtype=np.float32)  # the answer itself is normal
    task = Classification(tuple(f"class {number}" for number in range(CLASSES)))
    half = (0.5, 0.5, 0.5)
    return Model(graph, weights, task, Preprocessing((resolution, resolution), half, half))


def shrunk(model: Model) -> Model:
    """The same network with activations 1e-40 times as large from the second convolution on."""
    first = [node.name for node in model.graph if isinstance(node.op, ops.Conv)][:2]
    weights = {f"{name}.weight": model.weights[f"{name}.weight"] * np.float32(1e-20) for name in first}
    return replace(model, weights={**model.weights, **weights})


def run(model: Model, engine: str, threads: int, path: Path) -> Callable[[], object]:
    """One image in an engine, whose answer is checked first."""
    if engine == "compiled":
        file = path.with_suffix(targets.host().suffixes[0])
        compile_file(model, file, threads=threads)
        net = runtime.open(file, threads=threads)
    else:
        net = runtime.of(model, engine=engine, threads=threads)
    image = probe_image(net.input_shape)
    net.run(image)
    return lambda: net.run(image)


def step(model: Model, threads: int) -> Callable[[], object]:
    """Forward and backward in the training kernels."""
    import torch

    from smallcnn.module import to_module
    from smallcnn.train.fast import accelerate

    torch.set_num_threads(threads)
    module = to_module(model.graph, model.weights)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = accelerate(module.train())
    images = torch.randn(BATCH, 3, *model.preprocessing.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES

    def differentiate() -> None:
        torch.nn.functional.cross_entropy(forward(images), labels).backward()  # type: ignore[no-untyped-call]
        module.zero_grad()

    return differentiate


if __name__ == "__main__":
    main()
