"""`compress`: a model file through steps that make it smaller or faster, written if it is as accurate as required."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from smallcnn.compress.budget import UNLIMITED, Limits, spelled_ms
from smallcnn.compress.workshop import Means, Row, Say, Workshop
from smallcnn.data.sources import Data
from smallcnn.errors import TRAIN, AccuracyError, DataError, FileError, GraphError, require
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.model.shipped import located
from smallcnn.system import lock
from smallcnn.system.files import check_apart, check_writable
from smallcnn.tasks.metrics import title
from smallcnn.transform.share.low_rank import SECOND


class Step(Protocol):
    """One step of a compression, a dataclass of its settings: a run resumes only with the same.

    `kind` is its name in the facts of the model; each result it keeps becomes a row.
    """

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def trains(self) -> bool:
        """Whether it needs training images with the network's labels; otherwise any that can be judged on will do."""

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The model after the step. Results that take long are kept by `shop.once`."""


@dataclass(frozen=True)
class Width:
    """Channels that a layer computes, before and after."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True)
class Compressed:
    """A compressed model, and a row for the original and for each result of a step.

    `score` is the name of the task's score, `judged` the number of images that judge, `part` the split they are from.
    `widths` are the layers that lost channels.
    """

    model: Model
    rows: tuple[Row, ...]
    score: str
    judged: int
    part: str
    widths: tuple[Width, ...]

    @property
    def drop(self) -> float:
        """Points of the score that were lost, in per cent."""
        return 100 * (self.rows[0].score - self.rows[-1].score)

    def problem(self, max_drop: float, limits: Limits, shop: Workshop) -> str | None:
        """What is wrong with the model, in words; None if it is as accurate, small and fast as required."""
        before, after = self.rows[0].score, self.rows[-1].score
        if self.drop > max_drop:
            return (
                f"{title(self.score)} drops from {before:.1%} to {after:.1%}, by {self.drop:.1f} points; "
                f"at most {max_drop:g} are allowed"
            )
        return over(self.model, limits, shop)


def compress(
    file: str | Path | Model,
    data: Data,
    out: str | Path,
    steps: Sequence[Step],
    *,
    limits: Limits = UNLIMITED,
    root: str | Path | None = None,
    max_drop: float = 1.0,
    anyway: bool = False,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    say: Say = lambda line: None,
) -> Compressed:
    """Applies `steps` to a model file, or its contents, and writes the result as a .safetensors model file.

    The train split of `data` trains and scores channels; the test split judges, or if there is none, the validation
    split, as in training. Results of steps are kept in `folder`, from which the same call resumes; by default it is
    next to `out`, and removed once the file is written.

    Raises AccuracyError, without writing unless `anyway`, if the score drops by more than `max_drop` per cent points or
    the file is not within the `limits`. Raises FileError, DataError or GraphError for a file, data or a network that
    cannot be used, and KeyboardInterrupt after Ctrl-C and a checkpoint.
    """
    if not steps:
        raise DataError(
            "no step of compression is asked for: --prune 0.5x saves time, --share 5bit saves bytes; --size 500kB or "
            "--latency 3ms alone finds the steps"
        )
    asked, trains = {step.kind: asdict(step) for step in steps}, any(step.trains for step in steps)
    place = means(out, folder, seed=seed, device=device, threads=threads, workers=workers, say=say)
    with opened(file, data, out, place, root=root, asked=asked, trains=trains) as shop:
        found = applied(steps, shop, limits)
        problem = found.problem(max_drop, limits, shop)
    if problem and not anyway:
        raise AccuracyError(f"{problem}; {_advice(found)}; --anyway writes it all the same")
    store.save(found.model, out, packed=True)
    if folder is None:
        shutil.rmtree(place.folder)
    return found


def means(
    out: str | Path, folder: str | Path | None, *, seed: int, device: str, threads: int | None, workers: int | None,
    say: Say,
) -> Means:  # fmt: skip
    """What a run uses; its folder is next to `out` unless one is given."""
    out = Path(out)
    place = Path(folder) if folder else out.with_name(f"{out.stem}_steps")
    return Means(folder=place, seed=seed, device=device, threads=threads, workers=workers, say=say)


@contextmanager
def opened(
    file: str | Path | Model, data: Data, out: str | Path, place: Means, *, root: str | Path | None, asked: Any,
    trains: bool,
) -> Iterator[Workshop]:  # fmt: skip
    """The workshop of a run that will write `out`, its folder locked. Raises SmallcnnError before any work."""
    require("compressing", "train", *TRAIN)
    from smallcnn.train.run import set_threads

    out = Path(out)
    if out.suffix.lower() != ".safetensors":
        raise FileError(f"{out}: a compressed model's name ends in .safetensors; `smallcnn export` turns it into ONNX")
    if isinstance(file, Model):
        model, size = file, None
    else:
        path = located(file)
        check_apart(out, path)
        model, size = read(path), path.stat().st_size
    if model.graph.integer:
        raise GraphError(f"{model.graph.name} is quantized; compress the float model that it was made from")
    store.check_finite(model, model.graph.name)
    check_writable(out)
    set_threads(place.threads)
    with lock.run_folder(place.folder):
        yield Workshop(model, data, place, root=root, asked=asked, trains=trains, size=size)


def applied(steps: Sequence[Step], shop: Workshop, limits: Limits = UNLIMITED) -> Compressed:
    """The original after the steps, whose results are rows of the workshop."""
    model = shop.original
    for step in steps:
        model = step.apply(model, shop)
    return concluded(model, steps, shop, limits)


def concluded(model: Model, steps: Sequence[Step], shop: Workshop, limits: Limits) -> Compressed:
    """The result of steps, with what was asked for in its facts; it is timed if there is a limit of time.

    Its row has the bytes of the file with these facts. Without steps the original is packed.
    """
    if limits.milliseconds is not None:
        shop.clock.milliseconds(model)
    original, asked = shop.original, {step.kind: asdict(step) for step in steps}
    other = {**original.facts.other, **model.facts.other, "compressed": {"from": original.graph.name, **asked}}
    made = replace(model, facts=replace(model.facts, other=other))
    widths = tuple(_widths(original.graph, made.graph))
    *before, last = shop.report()
    if not before:
        before, last = [last], replace(last, name="packed")
    rows = (*before, replace(last, bytes=len(store.content(made, packed=True))))
    return Compressed(made, rows, shop.score, shop.judged, shop.part, widths)


def over(model: Model, limits: Limits, shop: Workshop) -> str | None:
    """How a model exceeds the limits, in words; None if it does not. Times it if it has not been timed."""
    if limits.bytes is not None:
        taken = len(store.content(model, packed=True))
        if taken > limits.bytes:
            return f"the file takes {taken:,} bytes; at most {limits.bytes:,} are allowed"
    if limits.milliseconds is not None:
        took = shop.clock.milliseconds(model)
        if took > limits.milliseconds:
            return f"an image takes {spelled_ms(took)}; at most {spelled_ms(limits.milliseconds)} are allowed"
    return None


def _widths(before: Graph, after: Graph) -> list[Width]:
    """The layers with fewer channels than before; of one in two, the second has them."""
    left = {node.name.removesuffix(SECOND): node.shape[-1] for node in after}
    return [
        Width(node.name, node.shape[-1], left[node.name])
        for node in before
        if isinstance(node.op, ops.Conv | ops.Dense) and left.get(node.name, node.shape[-1]) < node.shape[-1]
    ]


def _advice(found: Compressed) -> str:
    """The layers that lost most, and what to try."""
    most = sorted(found.widths, key=lambda width: width.after / width.before)[:3]
    layers = ", ".join(f"{width.layer} ({width.before} to {width.after})" for width in most)
    if layers:
        return f"most channels went from {layers}; try more --fine-tune epochs, more --rounds or a larger budget"
    return "try more --fine-tune epochs or milder steps, such as more bits or fewer zeros"
