"""`compress`: a model file through steps that make it smaller or faster, written if it is as accurate as required."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from smallcnn.compress.workshop import Means, Row, Say, Workshop
from smallcnn.data.sources import Data
from smallcnn.errors import TRAIN, AccuracyError, DataError, FileError, require
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.model import store
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.model.shipped import located
from smallcnn.system import lock
from smallcnn.system.files import check_writable
from smallcnn.tasks.metrics import title


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


def compress(
    file: str | Path | Model,
    data: Data,
    out: str | Path,
    steps: Sequence[Step],
    *,
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

    Raises AccuracyError, without writing unless `anyway`, if the score drops by more than `max_drop` per cent points.
    Raises FileError, DataError or GraphError for a file, data or a network that cannot be used, and KeyboardInterrupt
    after Ctrl-C and a checkpoint.
    """
    require("compressing", "train", *TRAIN)
    from smallcnn.train.run import set_threads

    out = Path(out)
    if out.suffix.lower() != ".safetensors":
        raise FileError(f"{out}: a compressed model's name ends in .safetensors; `smallcnn export` turns it into ONNX")
    if not steps:
        raise DataError("no step of compression is asked for: --prune 0.5x saves time, --share 5bit saves bytes")
    model = file if isinstance(file, Model) else read(located(file))
    store.check_finite(model, model.graph.name)
    check_writable(out)
    set_threads(threads)
    means = Means(
        folder=Path(folder) if folder else out.with_name(f"{out.stem}_steps"), seed=seed, device=device,
        threads=threads, workers=workers, say=say,
    )  # fmt: skip
    asked = {step.kind: asdict(step) for step in steps}
    with lock.run_folder(means.folder):
        shop = Workshop(model, data, means, root=root, asked=asked, trains=any(step.trains for step in steps))
        made = model
        for step in steps:
            made = step.apply(made, shop)
    other = {**model.facts.other, "compressed": {"from": model.graph.name, **asked}}
    made = replace(made, facts=replace(made.facts, other={**made.facts.other, **other}))
    found = Compressed(
        made, tuple(shop.rows), shop.score, shop.judged, shop.part, tuple(_widths(model.graph, made.graph))
    )
    if found.drop > max_drop and not anyway:
        raise AccuracyError(f"{_problem(found, max_drop)}; {_advice(found)}; --anyway writes it all the same")
    store.save(made, out, packed=True)
    if folder is None:
        shutil.rmtree(means.folder)
    return found


def _widths(before: Graph, after: Graph) -> list[Width]:
    """The layers with fewer channels than before."""
    left = {node.name: node.shape[-1] for node in after}
    return [
        Width(node.name, node.shape[-1], left[node.name])
        for node in before
        if isinstance(node.op, ops.Conv | ops.Dense) and left.get(node.name, node.shape[-1]) < node.shape[-1]
    ]


def _problem(found: Compressed, max_drop: float) -> str:
    before, after = found.rows[0].score, found.rows[-1].score
    return (
        f"{title(found.score)} drops from {before:.1%} to {after:.1%}, by {found.drop:.1f} points; "
        f"at most {max_drop:g} are allowed"
    )


def _advice(found: Compressed) -> str:
    """The layers that lost most, and what to try."""
    most = sorted(found.widths, key=lambda width: width.after / width.before)[:3]
    layers = ", ".join(f"{width.layer} ({width.before} to {width.after})" for width in most)
    tries = "more --fine-tune epochs, more --rounds or a larger budget"
    return f"most channels went from {layers}; try {tries}" if layers else f"try {tries}"
