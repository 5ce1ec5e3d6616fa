"""A demo of every step on real data that needs no download: handwritten digits.

It shows cost, training, export, accuracy on held-out digits, predictions, timing, and one report. Each step is one
library call, printed as the equivalent command, so that it is easy to repeat on another data set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn import onnx, runtime, zoo
from smallcnn.bench.bench import bench
from smallcnn.bench.rows import Row
from smallcnn.cost.profile import Profile, profile
from smallcnn.data.sources import Source, open_source
from smallcnn.evaluate import Evaluation, evaluate
from smallcnn.model import store
from smallcnn.report import network
from smallcnn.report import run as report
from smallcnn.tasks.classification import Prediction

# Shallow: 99.2 and 99.4 % on the test split with two seeds; all thirteen blocks reach 98.3 and 99.2 %, half as fast.
MODEL = "mobilenet_v1:width=0.25,variant=shallow,small_input=true"
EPOCHS, BATCH, VAL_FRACTION = 30, 32, 0.1
_SHOWN = 5


@dataclass(frozen=True)
class Demo:
    """The results of each step."""

    cost: Profile
    evaluation: Evaluation
    predictions: list[tuple[Path, str, Prediction]]
    times: list[Row]
    report: Path


def demo(folder: Path, say: Callable[[str], None] = lambda line: None) -> Demo:
    """Runs every step in `folder`; an interrupted demo resumes. `say` is called with each line of output."""
    from smallcnn.train.run import train

    run, model = folder / "run", folder / "digits.onnx"
    commands = [
        f"smallcnn cost {MODEL} --resolution 32 --classes 10 --channels 1",
        f"smallcnn train {MODEL} --data digits --epochs {EPOCHS} --batch-size {BATCH} --val-fraction {VAL_FRACTION} "
        f"--out {run}",
        f"smallcnn export {run}/last.safetensors --to onnx --out {model}",
        f"smallcnn evaluate {model} --data digits",
        f"smallcnn predict {model} {folder}/images/*.png",
        f"smallcnn bench {model} {run}/last.safetensors --engine onnxruntime",
    ]
    say(f"# {commands[0]}")
    source = open_source("digits", val_fraction=VAL_FRACTION)
    counted = profile(zoo.parse(MODEL).build(resolution=32, classes=10, channels=1))
    say(f"{counted.mult_adds:,} Mult-Adds, {counted.parameters:,} parameters")

    say(f"# {commands[1]}")
    result = train(MODEL, source, run, resume=True, epochs=EPOCHS, batch_size=BATCH, val_fraction=VAL_FRACTION)
    if not result.finished:
        raise KeyboardInterrupt

    say(f"# {commands[2]}")
    # the last weights, not the best: nothing is selected by accuracy, so the figure below is an unbiased estimate
    error = onnx.export(store.load(result.last), model)
    say(f"{model}: {model.stat().st_size:,} bytes, agrees with the trained network to {error:.1e}")

    say(f"# {commands[3]}")
    net = runtime.open(model)
    evaluation = evaluate(net, source)
    metrics = evaluation.metrics
    say(f"top-1 {metrics.top1:.2%} on {metrics.images} digits the network has never seen")

    say(f"# {commands[4]}")
    predictions = [(path, true, net.classify([path])[0]) for path, true in _write_images(source, folder / "images")]
    for path, true, seen in predictions:
        say(f"{path.name}: {seen.label} {seen.probability:.1%}  (is {true})")

    say(f"# {commands[5]}")
    times = bench([model, result.last], threads=1, seconds=1.0)
    for row in times:
        say(f"{Path(row.file).name} in {row.engine}: {row.median_ms:.3f} ms ({row.min_ms:.3f} to {row.max_ms:.3f})")

    page = folder / "report.html"
    report.write(
        page,
        "smallcnn on handwritten digits",
        [
            (f"{metrics.top1:.2%}", "top-1 on unseen digits"),
            (f"{counted.mult_adds / 1e6:.2f} M", "Mult-Adds"),
            (f"{counted.parameters / 1e3:,.0f} k", "parameters"),
            (f"{model.stat().st_size / 1e6:.2f} MB", "ONNX file"),
            (f"{times[0].median_ms:.2f} ms", f"per image, 1 thread, {times[0].engine}"),
        ],
        [
            report.curves(result.history, result.goal),
            network.accuracy(evaluation, net, "digits"),
            network.predictions(net, source.splits["test"], source.classes),
            network.cost(counted),
            network.latency(times),
            network.facts(net, commands),
        ],
    )
    say(f"report: {page}")
    return Demo(counted, evaluation, predictions, times, page)


def _write_images(source: Source, folder: Path) -> list[tuple[Path, str]]:
    """Writes a few unseen digits as PNG files; returns paths and true classes."""
    folder.mkdir(parents=True, exist_ok=True)
    test = source.splits["test"]
    written = []
    for index in range(0, len(test), len(test) // _SHOWN):
        true = source.classes[test.labels[index]]
        path = folder / f"digit-{index}.png"
        Image.fromarray(np.asarray(test.images[index])).save(path)
        written.append((path, true))
    return written[:_SHOWN]
