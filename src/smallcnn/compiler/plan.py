"""Plans layers as calls: what is fused, in which register tiles and strips, and how threads split it.

    plan(layers, answer, machine, ...) -> list[Call]

The choices come from a small cost model whose numbers were measured on one thread of a Zen 3 (32 KiB first-level and
512 KiB second-level cache, 16 registers of 8 floats).
"""

import itertools
from collections import Counter
from collections.abc import Sequence

from smallcnn.compiler import calls
from smallcnn.compiler.calls import Call, Normalisation
from smallcnn.compiler.layers import Layer, Plus, Storage, View, root, up
from smallcnn.compiler.specs import Machine, Tile
from smallcnn.ir import ops

_CACHE = 40_000
"""Maximum floats of a strip between two fused layers: a third of the second-level cache."""
_CACHE_HEAVY = 100_000
"""The same where the weights exceed that cache and are reread for every strip."""
_SMALL = 40_000
"""Maximum number of weights that stay in the second-level cache along with a strip."""
_CHAIN = 100_000
"""Maximum floats of the rows kept of an expanded map."""
_LARGE = 150_000
"""Floats from which an expanded map is never written whole: saves 15 % at 112x112x96, 3 % at 28x28x192, a loss at
14x14x384."""
_HUGE = 1_200_000
"""Floats of a map from which the blocks on both sides become one chain; at 800,000, which fits the third-level cache,
one chain per block is as fast."""
_HEAVY = 150_000
"""Number of weights from which a few long strips are best, although they exceed the second-level cache: 19x19x728 to
728 takes 3 % less in one strip than in four."""
_SHARED = 100_000
"""Number of weights from which threads split a pointwise layer by lanes instead of pixels: each reads a share."""
_PANEL = 7_000
"""Floats of a tile's weights that stay in the first-level cache across pixels; beyond that they come from the second
level, and wide tiles cost more than they save."""
_FEW_PIXELS = 100
"""Pixels below which strips are too short to split between threads."""


def plan(
    layers: Sequence[Layer],
    answer: View,
    machine: Machine,
    image: Normalisation,
    input_shape: ops.Shape,
    threads: int = 2,
) -> list[Call]:
    """Calls in order; the last copies `answer` out. Every strip has work for up to `threads` threads."""
    planner = _Planner(machine, image, input_shape, threads, *_uses(layers, answer))
    waiting, result = list(layers), []
    while waiting:
        call = planner.chain(waiting) or planner.strips(waiting) or planner.single(waiting[0])
        result.append(call)
        del waiting[: len(call.layers)]
    return [*result, calls.answer(answer)]


def best_tiles(pixels: int, lanes: int, depth: int, machine: Machine) -> list[Tile]:
    """Register tiles for `pixels` x `lanes` sums of `depth` terms, least estimated work first."""
    vectors = lanes // machine.vector

    def work(tile: tuple[int, int]) -> float:
        p, v = tile
        products = p * v
        loads = 1.6 * p + 0.75 * v  # in multiply-adds: 13x1 runs at 62 % of the peak
        far = 3.2 * v if v * depth * machine.vector > _PANEL else 0.0
        busy = max(products, loads, far, 9.3 if products < 10 else 0)  # 8 sums do not hide the latency
        return -(-pixels // p) * -(-vectors // v) * (busy * depth + 2 * products + 10)

    def fits(p: int, v: int) -> bool:
        return p <= pixels and v <= vectors and p * v + v + 1 <= machine.registers

    tiles = [(p, v) for p in range(1, machine.registers) for v in range(1, 13) if fits(p, v)]
    unroll = next(u for u in (4, 3, 2, 1) if depth % u == 0)
    return [Tile(p, v, unroll) for p, v in sorted(tiles, key=work)]


class _Planner:
    def __init__(
        self,
        machine: Machine,
        image: Normalisation,
        input_shape: ops.Shape,
        threads: int,
        readers: Counter[Storage],
        writers: Counter[Storage],
    ) -> None:
        self.machine, self.image, self.input_shape, self.threads = machine, image, input_shape, threads
        self.readers, self.writers = readers, writers
        self.vector = machine.vector

    def chain(self, waiting: Sequence[Layer]) -> Call | None:
        """A whole inverted residual, the first convolution with the block after it, or several blocks, where the maps
        between them are large."""
        layers, end = list(waiting[:1]), 0
        first = layers[0]
        of_image = first.from_image and first.op != "image"
        if not (of_image or calls.is_depthwise(first) or (_is_pointwise(first) and first.inputs[0].contiguous)):
            return None
        for before, following in itertools.pairwise(waiting):
            windowed, between = calls.is_depthwise(following), before.output.storage.floats
            if windowed and (between < (_HUGE if end else _LARGE) or not _covers(following, before, self.vector)):
                break
            if _adds(before) or not self._feeds(before, following) or not (windowed or _is_pointwise(following)):
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
        rows = _rows(height, fitting, self.threads)
        tiles = [self._chain_tile(layer, layer is layers[-1], rows) for layer in layers]
        return calls.chain(layers, tiles, rows, self.vector, self.image, self.input_shape)

    def _kept(self, layers: Sequence[Layer], rows: int) -> int:
        """Floats that the stages before the last keep for strips of `rows`."""
        total = 0
        for layer, following in zip(layers[-2::-1], layers[:0:-1], strict=True):
            if calls.is_depthwise(following):
                assert isinstance(following.op, ops.Conv)
                rows = (rows - 1) * following.op.stride[0] + following.op.kernel[0]
            total += rows * layer.output.storage.width * layer.output.storage.lanes
        return total

    def _chain_tile(self, layer: Layer, last: bool, rows: int) -> Tile:
        out = layer.output.storage
        if calls.is_depthwise(layer):
            return Tile(_neighbours(out.width), 1)
        assert isinstance(layer.op, ops.Conv)
        channels = self.input_shape[2] * layer.op.kernel[1] if layer.from_image else layer.inputs[0].channels
        channels = channels if layer.from_image else up(channels, self.vector)
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
        fitting = middle.height if heavy else limit // (middle.width * middle.lanes)
        rows = _rows(middle.height, fitting, self.threads)
        tile = best_tiles(rows * middle.width, lanes, middle.lanes, self.machine)[0]
        return calls.separable(first, second, _neighbours(middle.width), tile, rows, self.vector)

    def single(self, layer: Layer) -> Call:
        """A layer on its own."""
        if layer.op == "image":
            return calls.image(layer, self.image, self.vector)
        if calls.is_depthwise(layer):
            return calls.depthwise_conv(layer, _neighbours(layer.output.storage.width), self.vector)
        if isinstance(layer.op, ops.Dense) or _is_pointwise(layer, grouped=True):
            return self._matrix(layer)
        if isinstance(layer.op, ops.Conv):
            return self._windows(layer)
        return calls.per_lane(layer, self.vector)

    def _matrix(self, layer: Layer) -> Call:
        groups, out = calls.groups_of(layer), layer.output.storage
        depth, lanes, blocks = layer.inputs[0].channels // groups, self._lanes(layer), 1
        if (
            self.threads > 1
            and groups == 1
            and depth * lanes > _SHARED
            and calls.even_step(layer.inputs[0], 1) is not None
        ):
            vectors = lanes // self.vector
            blocks = max(b for b in (1, 2, 4) if vectors % b == 0 and (b == 1 or vectors // b >= 4))
        tile = best_tiles(out.pixels, lanes // blocks, depth, self.machine)[0]
        return calls.pointwise(layer, tile, self.vector, blocks)

    def _windows(self, layer: Layer) -> Call:
        assert isinstance(layer.op, ops.Conv)
        out, groups = layer.output.storage, layer.op.groups
        shape: ops.Shape = self.input_shape
        if not layer.from_image:
            source = layer.inputs[0]
            shape = (source.storage.height, source.storage.width, source.channels)
        (kernel, columns), stride = layer.op.kernel, layer.op.stride[0]
        width = (shape[1] + columns) * shape[2]
        fitting = (_CACHE // width - kernel) // stride + 1
        rows = _rows(out.height, fitting, self.threads)
        depth = shape[2] // groups * columns
        tile = best_tiles(rows * out.width, self._lanes(layer), depth, self.machine)[0]
        return calls.convolution(layer, tile, rows, self.vector, self.image if layer.from_image else None, shape)

    def _lanes(self, layer: Layer) -> int:
        """Lanes of one group."""
        return calls.lanes_of(layer, self.vector) // calls.groups_of(layer)

    def _feeds(self, first: Layer, second: Layer) -> bool:
        """Whether `second` is the only reader of the result of `first`, which has its own storage."""
        made = first.output.storage
        alone = self.readers[made] == self.writers[made] == 1
        return alone and bool(second.inputs) and set(second.inputs[0].storages) == {made}

    def _is_separable(self, first: Layer, second: Layer) -> bool:
        return calls.is_depthwise(first) and _is_pointwise(second) and self._feeds(first, second)


def _adds(layer: Layer) -> bool:
    return any(isinstance(step, Plus) for step in layer.epilogue)


def _covers(layer: Layer, before: Layer, vector: int) -> bool:
    """Whether a layer reads all lanes that `before` writes."""
    return layer.inputs[0].span(vector) == before.output.span(vector)


def _uses(layers: Sequence[Layer], answer: View) -> tuple[Counter[Storage], Counter[Storage]]:
    """How many layers read each storage (including the copy of the output) and how many write it."""
    reads = [*(view for layer in layers for view in layer.reads), answer]
    readers = Counter(storage for view in reads for storage in {root(storage) for storage in view.storages})
    return readers, Counter(root(layer.output.storage) for layer in layers)


def _is_pointwise(layer: Layer, grouped: bool = False) -> bool:
    op = layer.op
    return (
        isinstance(op, ops.Conv)
        and (grouped or op.groups == 1)
        and op.kernel == op.stride == (1, 1)
        and op.padding == ops.NO_PADDING
        and not layer.from_image
    )


def _neighbours(width: int) -> int:
    """Pixels of a row that a depthwise kernel computes together: up to 7, with the least overlap at the row's end."""
    return min(width, min((7, 6, 5, 4), key=lambda pixels: up(width, pixels) * (pixels + 2) / pixels))


def _rows(height: int, fitting: int, threads: int) -> int:
    """Rows per strip, at most `fitting`: first minimises the busiest thread's work, then maximises rows."""
    most = max(1, min(fitting, -(-height // threads)))

    def longest(rows: int) -> int:
        return -(-height // (rows * threads)) * rows

    return min(range(max(1, most // 2), most + 1), key=lambda rows: (longest(rows), -rows))
