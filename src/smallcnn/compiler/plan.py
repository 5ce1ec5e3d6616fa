"""Plans layers as calls: what is fused, in which register tiles and strips, and how threads split it.

    plan(layers, answers, context, threads) -> list[Call]

Every way to cut the sequence of layers into kernels is considered, each kernel with its best choices (`space`); the
plan is the one with the least estimated time.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from smallcnn.compiler import calls
from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.layers import AddBytes, Layer, Plus
from smallcnn.compiler.space import choices
from smallcnn.compiler.storage import Storage, View
from smallcnn.ir import ops

_LONGEST = 5
"""Layers of the longest chain: the first convolution and two blocks. With a third block and a fourth, SSD-MobileNet v1
took 3 to 5 % longer (Zen 4)."""


def plan(layers: Sequence[Layer], answers: Sequence[View], context: Context, threads: int = 2) -> list[Call]:
    """Calls in order; the last copy the `answers` out. `threads` is the number to plan for."""
    groups = Groups(layers, answers, context)
    estimator = context.estimator(threads)
    best: dict[int, float] = {len(layers): 0.0}
    taken: dict[int, tuple[int, Choice]] = {}
    known: dict[object, tuple[Choice, float]] = {}
    for start in reversed(range(len(layers))):
        for group in groups.at(start):
            key = _shape(group, context.vector)
            if key not in known:
                choice = choices(group, context, threads, 1)[0]
                known[key] = choice, estimator.kernel(group, choice)
            choice, time = known[key]
            total = time + best[start + len(group)]
            if start not in best or total < best[start]:
                best[start], taken[start] = total, (len(group), choice)
    result, at = [], 0
    while at < len(layers):
        length, choice = taken[at]
        result.append(calls.call(layers[at : at + length], choice, context))
        at += length
    return [*result, *(calls.answer(view, i) for i, view in enumerate(answers))]


class Groups:
    """Which layers one kernel can compute together."""

    def __init__(self, layers: Sequence[Layer], answers: Sequence[View], context: Context) -> None:
        self.layers, self.vector = layers, context.vector
        self.large = context.model.second_level_bytes
        self.readers, self.writers = _uses(layers, answers)

    def at(self, start: int) -> Iterator[Sequence[Layer]]:
        """The groups that begin with a layer: it alone, a depthwise convolution with the pointwise one after it, and
        chains: an inverted residual, the first convolution with the pool or the block after it, two blocks where the
        map between them is large. A pool after a block stays alone: of Xception, one block gained 0.9 of 17 ms, another
        lost 1.5."""
        layers = self.layers[start:]
        yield layers[:1]
        first, length, pooled = layers[0], 1, False
        of_image = first.from_image and first.op != "image"
        if not (of_image or first.windowed or (first.pointwise() and first.inputs[0].contiguous)):
            return
        for before, following in itertools.pairwise(layers):
            if _adds(before) or not _compute_alike(before, following) or not self._feeds(before, following):
                return
            if following.windowed:
                if not _covers(following, before, self.vector):
                    return
                within = length > 1 and before.matrix
                if within and (before.output.storage.bytes < self.large or not following.depthwise):
                    return
            elif not (following.pointwise() and before.windowed):
                return
            length += 1
            if length > _LONGEST:
                return
            pooled |= isinstance(following.op, ops.Pool)
            if pooled or not following.windowed:
                yield layers[:length]

    def _feeds(self, first: Layer, second: Layer) -> bool:
        """Whether `second` is the only reader of the result of `first`, which has its own storage."""
        made = first.output.storage
        alone = self.readers[made] == self.writers[made] == 1
        return alone and bool(second.inputs) and set(second.inputs[0].storages) == {made}


def _shape(group: Sequence[Layer], vector: int) -> object:
    """What decides the choices of a group: two groups of one shape have the same."""

    def place(view: View) -> object:
        storage = view.storage
        return storage.height, storage.width, view.channels, view.contiguous, view.single

    return tuple(
        (layer.op, layer.from_image, layer.bytes, layer.lanes(vector), place(layer.output), len(layer.epilogue),
         tuple(place(view) for view in layer.reads))
        for layer in group
    )  # fmt: skip


def _adds(layer: Layer) -> bool:
    return any(isinstance(step, Plus | AddBytes) for step in layer.epilogue)


def _compute_alike(layer: Layer, following: Layer) -> bool:
    """Whether both compute with real numbers, or both with bytes, and one gives what the other reads."""
    whole = [
        bool(one.bytes) or (isinstance(one.op, ops.Pool) and one.inputs[0].number != "float32")
        for one in (layer, following)
    ]
    return whole[0] == whole[1] and (layer.output.number == "uint8") == whole[1] and layer.output.number != "int32"


def _covers(layer: Layer, before: Layer, vector: int) -> bool:
    """Whether a layer reads all lanes that `before` writes."""
    return layer.inputs[0].span(vector) == before.output.span(vector)


def _uses(layers: Sequence[Layer], answers: Sequence[View]) -> tuple[Counter[Storage], Counter[Storage]]:
    """How many layers read each storage (including the copies of the outputs) and how many write it."""
    reads = [*(view for layer in layers for view in layer.reads), *answers]
    readers = Counter(storage for view in reads for storage in {storage.root for storage in view.storages})
    return readers, Counter(layer.output.storage.root for layer in layers)
