"""Plans layers as calls: what is fused, in which register tiles and strips, and how threads split it.

    plan(layers, answers, context, ...) -> list[Call]

The choices come from a small cost model whose numbers were measured on one thread of a Zen 3 (512 KiB second-level
cache); see also `choices`.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

from smallcnn.compiler import calls
from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.choices import Choice, best_tiles, neighbours, strip_rows
from smallcnn.compiler.layers import Layer, Plus
from smallcnn.compiler.sides import even_step
from smallcnn.compiler.specs import Tile
from smallcnn.compiler.storage import Storage, View, up
from smallcnn.ir import ops
from smallcnn.ir.types import SIZES

_CACHE = 160_000
"""Maximum bytes of a strip between two fused layers: a third of the second-level cache."""
_CACHE_HEAVY = 400_000
"""The same where the weights exceed that cache and are reread for every strip."""
_SMALL = 40_000
"""Maximum number of weights that stay in the second-level cache along with a strip."""
_CHAIN = 400_000
"""Maximum bytes of the rows kept of an expanded map."""
_LARGE = 600_000
"""Bytes from which an expanded map is never written whole: saves 15 % at 112x112x96, 3 % at 28x28x192, a loss at
14x14x384."""
_HUGE = 4_800_000
"""Bytes of a map from which the blocks on both sides become one chain; at 3,200,000, which fits the third-level cache,
one chain per block is as fast."""
_HEAVY = 150_000
"""Number of weights from which a few long strips are best, although they exceed the second-level cache: 19x19x728 to
728 takes 3 % less in one strip than in four."""
_SHARED = 100_000
"""Number of weights from which threads split a pointwise layer by lanes instead of pixels: each reads a share."""
_FEW_PIXELS = 100
"""Pixels below which strips are too short to split between threads."""
_FLOAT = SIZES["float32"]


def plan(layers: Sequence[Layer], answers: Sequence[View], context: Context, threads: int = 2) -> list[Call]:
    """Calls in order; the last copy the `answers` out. Every strip has work for up to `threads` threads."""
    planner = _Planner(context, threads, *_uses(layers, answers))
    waiting, result = list(layers), []
    while waiting:
        call = planner.chain(waiting) or planner.strips(waiting) or planner.single(waiting[0])
        result.append(call)
        del waiting[: len(call.layers)]
    return [*result, *(calls.answer(view, i) for i, view in enumerate(answers))]


class _Planner:
    def __init__(self, context: Context, threads: int, readers: Counter[Storage], writers: Counter[Storage]) -> None:
        self.context, self.threads = context, threads
        self.machine, self.vector = context.machine, context.vector
        self.readers, self.writers = readers, writers

    def chain(self, waiting: Sequence[Layer]) -> Call | None:
        """A whole inverted residual, the first convolution with the block after it, or several blocks, where the maps
        between them are large."""
        layers, end = list(waiting[:1]), 0
        first = layers[0]
        of_image = first.from_image and first.op != "image"
        if not (of_image or first.depthwise or (first.pointwise() and first.inputs[0].contiguous)):
            return None
        for before, following in itertools.pairwise(waiting):
            windowed, between = following.depthwise, before.output.storage.bytes
            if windowed and (between < (_HUGE if end else _LARGE) or not _covers(following, before, self.vector)):
                break
            if _adds(before) or not self._feeds(before, following) or not (windowed or following.pointwise()):
                break
            if end == len(layers) and not windowed:
                break
            layers.append(following)
            if not windowed:
                end = len(layers)
        if end < 3:
            return None
        layers = layers[:end]
        height = layers[-1].output.storage.height
        fitting = max((r for r in range(1, height + 1) if self._kept(layers, r) <= _CHAIN), default=1)
        rows = strip_rows(height, fitting, self.threads)
        tiles = tuple(self._chain_tile(layer, layer is layers[-1], rows) for layer in layers)
        return calls.call(layers, Choice(tiles, rows), self.context)

    def _kept(self, layers: Sequence[Layer], rows: int) -> int:
        """Bytes that the stages before the last keep for strips of `rows`."""
        total = 0
        for layer, following in zip(layers[-2::-1], layers[:0:-1], strict=True):
            if following.depthwise:
                assert isinstance(following.op, ops.Conv)
                rows = (rows - 1) * following.op.stride[0] + following.op.kernel[0]
            total += rows * layer.output.storage.width * layer.output.storage.lanes * _FLOAT
        return total

    def _chain_tile(self, layer: Layer, last: bool, rows: int) -> Tile:
        out = layer.output.storage
        if layer.depthwise:
            return neighbours(out.width)
        assert isinstance(layer.op, ops.Conv)
        if layer.from_image:
            channels = self.context.input_shape[2] * layer.op.kernel[1]
        else:
            channels = up(layer.inputs[0].channels, self.vector)
        return best_tiles(out.width * (rows if last else 1), self._lanes(layer), channels, self.machine)[0]

    def strips(self, waiting: Sequence[Layer]) -> Call | None:
        """A depthwise convolution with the pointwise one after it, if there are enough pixels to split."""
        if len(waiting) < 2 or not self._is_separable(*waiting[:2]):
            return None
        first, second = waiting[:2]
        middle, lanes = first.output.storage, self._lanes(second)
        if middle.pixels < _FEW_PIXELS * (self.threads - 1):
            return None
        limit = _CACHE if middle.lanes * lanes <= _SMALL else _CACHE_HEAVY
        heavy = middle.lanes * lanes > _HEAVY
        fitting = middle.height if heavy else limit // (middle.width * middle.lanes * _FLOAT)
        rows = strip_rows(middle.height, fitting, self.threads)
        tile = best_tiles(rows * middle.width, lanes, middle.lanes, self.machine)[0]
        return calls.call((first, second), Choice((neighbours(middle.width), tile), rows), self.context)

    def single(self, layer: Layer) -> Call:
        """A layer on its own."""
        return calls.call((layer,), self._choice(layer), self.context)

    def _choice(self, layer: Layer) -> Choice:
        if layer.op == "image":
            return Choice()
        if layer.depthwise:
            return Choice((neighbours(layer.output.storage.width),))
        if isinstance(layer.op, ops.Dense) or layer.pointwise(grouped=True):
            return self._matrix(layer)
        return self._windows(layer) if isinstance(layer.op, ops.Conv) else Choice()

    def _matrix(self, layer: Layer) -> Choice:
        out, view = layer.output.storage, layer.inputs[0]
        depth, lanes, shares = view.channels // layer.groups, self._lanes(layer), 1
        heavy = layer.groups == 1 and depth * lanes > _SHARED
        if self.threads > 1 and heavy and even_step(view, 1) is not None:
            vectors = lanes // self.vector
            shares = max(n for n in (1, 2, 4) if vectors % n == 0 and (n == 1 or vectors // n >= 4))
        return Choice((best_tiles(out.pixels, lanes // shares, depth, self.machine)[0],), shares=shares)

    def _windows(self, layer: Layer) -> Choice:
        assert isinstance(layer.op, ops.Conv)
        out = layer.output.storage
        _, width, channels = self.context.input_shape
        if not layer.from_image:
            width, channels = layer.inputs[0].storage.width, layer.inputs[0].channels
        (kernel, columns), stride = layer.op.kernel, layer.op.stride[0]
        fitting = (_CACHE // ((width + columns) * channels * _FLOAT) - kernel) // stride + 1
        rows = strip_rows(out.height, fitting, self.threads)
        depth = channels // layer.groups * columns
        return Choice((best_tiles(rows * out.width, self._lanes(layer), depth, self.machine)[0],), rows)

    def _lanes(self, layer: Layer) -> int:
        """Lanes of one group."""
        return layer.lanes(self.vector) // layer.groups

    def _feeds(self, first: Layer, second: Layer) -> bool:
        """Whether `second` is the only reader of the result of `first`, which has its own storage."""
        made = first.output.storage
        alone = self.readers[made] == self.writers[made] == 1
        return alone and bool(second.inputs) and set(second.inputs[0].storages) == {made}

    def _is_separable(self, first: Layer, second: Layer) -> bool:
        return first.depthwise and second.pointwise() and self._feeds(first, second)


def _adds(layer: Layer) -> bool:
    return any(isinstance(step, Plus) for step in layer.epilogue)


def _covers(layer: Layer, before: Layer, vector: int) -> bool:
    """Whether a layer reads all lanes that `before` writes."""
    return layer.inputs[0].span(vector) == before.output.span(vector)


def _uses(layers: Sequence[Layer], answers: Sequence[View]) -> tuple[Counter[Storage], Counter[Storage]]:
    """How many layers read each storage (including the copies of the outputs) and how many write it."""
    reads = [*(view for layer in layers for view in layer.reads), *answers]
    readers = Counter(storage for view in reads for storage in {storage.root for storage in view.storages})
    return readers, Counter(layer.output.storage.root for layer in layers)
