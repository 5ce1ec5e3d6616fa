"""Estimated times of kernels, from the machine's model.

    Estimator(model, machine, image, threads).kernel(layers, choice) -> nanoseconds

A kernel is a sequence of stages: matrix products in register tiles, windows, work lane by lane. A stage takes its
inner loop, limited by multiply-adds, loads, their latency, the instructions issued or the bytes that come from beyond
the first-level cache; and what each tile and strip starts with and stores. The machine's figures are in `MachineModel`;
`Fit` holds the weights of the terms, the same for every machine, fitted to thousands of timed kernels
(docs/compiler.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from smallcnn.compiler.arithmetic import RUN, Machine
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.machines import MachineModel
from smallcnn.compiler.reading import even_step, runs
from smallcnn.compiler.sides import terms_of
from smallcnn.compiler.specs import Tile
from smallcnn.compiler.storage import View
from smallcnn.compiler.winograd import KERNEL, transform
from smallcnn.ir import ops
from smallcnn.ir.types import SIZES

_ADDRESSES = 6
"""Pixels whose addresses stay in general registers (x86 has 16 for everything)."""


@dataclass(frozen=True)
class Fit:
    """Weights of the terms. Those of operations count multiply-adds of a full vector; those of bytes say what share of
    their time is not hidden by other work."""

    sharpness: float = 10.6
    """How sharply the slowest limit of an inner loop hides the others: the exponent of their norm."""
    across: float = 1.25
    """Extra loads for each pixel of a tile that runs on from row to row, beyond those with an address in a register."""
    table: float = 0.8
    """The same for each pixel where the channels are looked up in a table."""
    tile: float = 7.5
    """Start of a tile's inner loop; that of a convolution starts once per row of its window."""
    result: float = 0.46
    """Start and store of a vector of sums."""
    step: float = 0.44
    """One operation of the epilogue on a vector."""
    window: float = 3.1
    """Start of the sums of a depthwise tile."""
    window_load: float = 1.9
    """A load of a depthwise window, as a share of one of a matrix product."""
    panel: float = 0.7
    """Share of the first-level cache that a tile's weights may fill."""
    near: float = 1.0
    """Share of a cache that a strip and its weights may fill."""
    cold: float = 1.4
    """Bytes of weights, read for the first time."""
    ahead: float = 0.4
    """The same where they were fetched ahead."""
    stored: float = 0.25
    """Bytes written, and of a map between two stages, read."""
    fresh: float = 0.11
    """Bytes of a matrix product's source, read for the first time."""
    moved: float = 1.0
    """Bytes that windows read from another kernel or write for one: there is little else to do meanwhile."""
    exchanged: float = 2.0
    """Bytes that threads which share lanes read from each other: other kernels are split by rows."""
    copied: float = 0.48
    """Bytes of a strip copied with its border."""
    converted: float = 2.0
    """Turning a vector of bytes into what the level multiplies, in loads."""
    transformed: float = 0.55
    """Loads, stores and additions that turn pixels into transformed ones, or sums into outputs."""
    filtered: float = 1.7
    """The same of filters, whose numbers are stored far apart."""
    weights: float = 20.0
    """Nanoseconds until the weights of a matrix product of transformed tiles arrive."""
    strip: float = 60.0
    """Nanoseconds to start a stage of a strip."""


FIT = Fit()
WIDENING = 0.5
"""Widening a vector of weights to 16 bits takes one instruction, a product of pairs and its addition two."""


@dataclass(frozen=True)
class _Reads:
    """What a matrix product reads: terms of a sum, starts of its inner loop, bytes of the source, of these from outside
    the kernel, and copied with a border, `again` of these once more for every strip, because a filter's rows are apart;
    whether channels are looked up in a table."""

    terms: int
    starts: int
    bytes: int
    fresh: int
    copied: int
    table: bool
    again: float = 0.0


@dataclass(frozen=True)
class Estimator:
    """Estimates for a machine and a number of threads; `image` is the input's (H, W, C).

    `warm`: weights are in the second level before the kernel starts, as where forms of one kernel are timed in turn.
    """

    model: MachineModel
    machine: Machine
    image: tuple[int, int, int]
    threads: int = 1
    fit: Fit = FIT
    warm: bool = False
    _tables: dict[Layer, tuple[bool, int]] = field(default_factory=dict, repr=False)

    @property
    def vector(self) -> int:
        """Floats per register."""
        return self.machine.vector

    def kernel(self, layers: Sequence[Layer], choice: Choice) -> float:
        """Nanoseconds of the layers as one kernel, for the busiest thread, with the meeting after it."""
        total = self.model.call_ns + (self.model.meeting_ns if self.threads > 1 else 0.0)
        for i in range(len(layers)):
            tile = choice.tiles[i] if i < len(choice.tiles) else Tile(1, 1)
            total += self.stage(layers, i, tile, choice.rows, choice.shares)
        return total

    def stage(self, layers: Sequence[Layer], i: int, tile: Tile, rows: int, shares: int = 1) -> float:
        """Nanoseconds of stage `i` of the layers, in strips of `rows` of the last one's output (0: no strips)."""
        layer = layers[i]
        if tile.side:
            return self._filtering(layer, tile, rows)
        if layer.windowed:
            return self._windows(layers, i, tile, rows)
        if layer.matrix:
            return self._product(layers, i, tile, rows, shares)
        return self._lanewise(layer)

    def _strips(self, layers: Sequence[Layer], rows: int) -> tuple[int, float]:
        """Strips of the busiest thread, and its share of the output."""
        height = layers[-1].output.storage.height
        if not rows:
            return 1, 1 / self.threads
        strips = math.ceil(height / rows)
        own = math.ceil(strips / self.threads)
        return own, own / strips

    def _product(self, layers: Sequence[Layer], i: int, tile: Tile, rows: int, shares: int) -> float:
        layer, fit, model = layers[i], self.fit, self.model
        inner, out, weight = i < len(layers) - 1, layer.output.storage, SIZES[layer.weight_number]
        width, size = self.vector * weight * self._dot(layer), SIZES[out.number]
        lanes = layer.lanes(self.vector)
        reads, (strips, share) = self._reads(layers, i), self._strips(layers, rows)
        columns, tiles = self._tiles(layer, inner, tile, rows, strips, share)
        if shares > 1:
            share = math.ceil(shares / self.threads) / shares
            columns, tiles = math.ceil(columns * share), math.ceil(out.pixels / tile.pixels)
        crossing = rows and tile.across and not inner
        extra = fit.table * tile.pixels * reads.table + fit.across * max(0, tile.pixels - _ADDRESSES) * crossing
        sums, time = tile.pixels * tile.vectors, 0.0
        start = fit.tile * reads.starts / model.multiply_adds_per_ns + sums * self._end(layer)
        if layer.bytes and not i and not reads.copied and self.machine.converts:
            vectors = reads.terms * self._dot(layer) / (max(self._dot(layer), 2) * self.vector)
            converted = fit.converted * vectors / model.loads_per_ns  # for each pixel
            if rows:
                time = share * layer.inputs[0].storage.pixels * converted
            else:
                start += tile.pixels * converted

        # A tile's weights come from the first level, or the next where they do not fit; at the start of a strip from
        # the level that holds what the kernel keeps; for the first time from the third.
        weights = lanes * width // self.vector * reads.terms
        width *= 2 if tile.widened else 1
        panel = tile.vectors * width * reads.terms
        strip, room = reads.bytes * share / strips, fit.panel * model.first_level_bytes
        held = self.kept(layers, rows) if rows else strip
        kept = self._rate(weights + held)
        source = 0.0 if strip + min(panel, room / 2) <= room else tile.pixels * width / self.vector / kept
        far = source + (tile.vectors * width / self._rate(panel) if panel > room else 0.0)
        usual = self._term(layer, tile, extra, far)
        again = self._term(layer, tile, extra, source + tile.vectors * width / kept)
        time += strips * columns * tiles * (reads.terms * usual + start)
        time += columns * reads.terms * strips * (again - usual)
        if tile.widened:
            time += columns * strips * fit.converted * tile.vectors * reads.terms / model.loads_per_ns
        if not self.warm:
            first = fit.ahead if tile.ahead else fit.cold
            time += first * weights * (share if shares > 1 else 1) / model.third_level_bytes_per_ns

        time += fit.fresh * self._moved(reads.fresh) * (1 if shares > 1 else share)
        copied = reads.copied * share + (reads.again * strips if rows else 0.0)
        time += fit.copied * copied / model.second_level_bytes_per_ns
        written = out.pixels * lanes * size
        time += share * (self._kept_time(written, held) if inner else fit.stored * self._moved(written))
        if shares > 1:
            time += fit.exchanged * (reads.fresh + written) * (1 - share) / model.third_level_bytes_per_ns
        return time + (fit.strip * strips if rows else 0.0)

    def _filtering(self, layer: Layer, tile: Tile, rows: int) -> float:
        """A convolution by minimal filtering: a matrix product for each number of a tile, and the transforms."""
        fit, model, of, side = self.fit, self.model, transform(tile.side), tile.side
        (strips, share), lanes, out = self._strips([layer], rows), layer.lanes(self.vector), layer.output.storage
        channels, dot, size, small = layer.inputs[0].channels, self._dot(layer), of.size, KERNEL
        number = self.machine.byte_size if layer.bytes else SIZES["float32"]
        terms, vector = self._terms(layer, channels), self.vector * SIZES["float32"] // number
        tiles = math.ceil(out.width / side) * rows // side  # of a strip, of which the last may have fewer rows
        whole = share * math.ceil(out.height / side) * side / rows
        columns, passes = math.ceil(lanes // self.vector / tile.vectors), math.ceil(tiles / tile.pixels)
        coded, filters = (size**2 * many * channels * number for many in (tiles, lanes))
        sums = size**2 * tiles * tile.vectors * self.vector * SIZES["float32"]
        source = tile.pixels * dot * number / self._rate(coded) if coded > model.first_level_bytes else 0.0
        start = (fit.tile + tile.pixels * tile.vectors * fit.result) / model.multiply_adds_per_ns
        panel = passes * (terms * self._term(layer, tile, 0.0, source) + start) + fit.weights
        time = whole * columns * size**2 * panel
        if sums > model.first_level_bytes:
            time += 2 * whole * columns * sums / self._rate(sums)

        # A transform loads the numbers of a side, and stores as many as there are on a side of the result.
        pixels = channels / vector * (size + side) * (2 * size + np.count_nonzero(of.pixels))
        outputs = lanes / self.vector * (size + side) * (size + side + np.count_nonzero(of.outputs))
        steps = whole * tiles * (pixels + outputs)
        waited = fit.ahead if tile.ahead and passes > 1 else fit.cold
        if layer.bytes:
            each = (size + small) * (size + small + np.count_nonzero(of.filters))
            time += fit.filtered * strips * lanes * channels / vector * each / model.multiply_adds_per_ns
            weights = lanes * channels * small**2
        else:
            weights = filters
            time += (strips - 1) * waited * weights / self._rate(weights + coded + sums)
        time += fit.transformed * steps / model.multiply_adds_per_ns
        time += share * out.pixels * lanes / self.vector * self._end(layer)
        if not self.warm:
            time += waited * weights / model.third_level_bytes_per_ns
        fresh, written = (
            storage.pixels * many * SIZES[storage.number]
            for storage, many in ((layer.inputs[0].storage, channels), (out, lanes))
        )
        time += share * (fit.fresh * self._moved(fresh) + fit.stored * self._moved(written))
        return time + fit.strip * strips

    def _reads(self, layers: Sequence[Layer], i: int) -> "_Reads":
        """What a matrix product reads."""
        layer = layers[i]
        high, wide = layer.op.kernel if isinstance(layer.op, ops.Conv) else (1, 1)
        starts = high * (wide if layer.apart else 1)
        gaps = layer.reach[0] - high
        if layer.from_image:
            height, width, channels = self.image
            image = height * width * channels
            copied = image * SIZES[layer.source_number]
            terms = self._terms(layer, channels * high * wide // starts) * starts
            return _Reads(terms, starts, copied, image, copied, table=False, again=copied * gaps / height)
        view = layer.inputs[0]
        if i:
            terms = terms_of(layer, layers[i - 1], self.vector)
            size = view.storage.pixels * terms * self._kept(layers[i - 1], layer)
            return _Reads(self._terms(layer, terms), 1, size, 0, 0, table=False)
        size = view.storage.pixels * view.channels * SIZES[view.number]
        if layer not in self._tables:
            self._tables[layer] = self._table(layer)
        table, lanes = self._tables[layer]
        terms = self._terms(layer, lanes) * high * wide
        copied, again = size if (high, wide) != (1, 1) else 0, size * gaps / view.storage.height
        return _Reads(terms, starts, size, size, copied, table, again)

    def _table(self, layer: Layer) -> tuple[bool, int]:
        """Whether channels are looked up one by one in a table, and the lanes of a group that a sum reads."""
        view, of = layer.inputs[0], layer.bytes
        if even_step(view, layer.groups) is not None:
            return False, view.channels // layer.groups
        if not of or not layer.unstripped:
            return True, view.channels // layer.groups
        found = runs(view, layer.groups, self.machine.runs)
        return found.length < RUN, found.lanes

    def _tiles(self, layer: Layer, inner: bool, tile: Tile, rows: int, strips: int, share: float) -> tuple[int, int]:
        """Columns of tiles, and tiles in a column of a strip, for the busiest thread."""
        out = layer.output.storage
        columns = math.ceil(layer.lanes(self.vector) // layer.groups // self.vector / tile.vectors) * layer.groups
        if inner:
            return columns, math.ceil(out.height * share / strips) * math.ceil(out.width / tile.pixels)
        if rows and not tile.across:
            return columns, rows * math.ceil(out.width / tile.pixels)
        if rows:
            return columns, math.ceil(rows * out.width / tile.pixels)
        return columns, math.ceil(math.ceil(out.pixels / tile.pixels) / self.threads)

    def _term(self, layer: Layer, tile: Tile, extra: float, stream: float) -> float:
        """Nanoseconds of one term of a tile's sums, with `extra` loads, if its bytes from afar take `stream`."""
        model, p, v = self.model, tile.pixels, tile.vectors
        several = 2 if layer.bytes and self._dot(layer) == 2 else 1  # a product of pairs and an addition
        limits = (
            (p * v + (0.0 if tile.widened else self._widened(layer, v))) / self._products(layer),
            (p + extra) / (model.broadcasts_per_ns if v > 1 else model.loads_per_ns) + v / model.loads_per_ns,
            model.multiply_add_latency_ns,
            (several * p * v + v + (p if v > 1 else 0) + extra + 2 / tile.unroll) / model.operations_per_ns,
            stream,
        )
        return self._slowest(limits)

    def _windows(self, layers: Sequence[Layer], i: int, tile: Tile, rows: int) -> float:
        layer, fit, model = layers[i], self.fit, self.model
        out, op, source = layer.output.storage, layer.op, layer.inputs[0].storage
        assert isinstance(op, ops.Conv | ops.Pool)
        strips, share = self._strips(layers, rows)
        lanes, (high, wide), pixels = layer.lanes(self.vector), op.kernel, tile.pixels
        several, columns = math.ceil(high / self._dot(layer)), (pixels - 1) * op.stride[1] + layer.reach[1]
        if layer.apart and not layer.bytes:  # between the columns that it reads are others
            starts, step = range(0, pixels * op.stride[1], op.stride[1]), (layer.reach[1] - 1) // (wide - 1)
            columns = len({start + j * step for start in starts for j in range(wide)})
        taps = several * wide
        loads = (0 if layer.bytes else high * columns) + (taps if layer.depthwise else 0)
        limits = (
            (pixels * taps + self._widened(layer, taps)) / self._products(layer),
            fit.window_load * loads / model.loads_per_ns,
            taps * model.multiply_add_latency_ns,
        )
        start = fit.window / model.multiply_adds_per_ns + pixels * self._end(layer)
        if layer.bytes:
            start += several * columns / model.woven_per_ns
        tiles = math.ceil(out.height * share) * math.ceil(out.width / pixels) * (lanes // self.vector)
        time = tiles * (self._slowest(limits) + start)
        read, written = (storage.pixels * lanes * SIZES[storage.number] for storage in (source, out))
        kept = self.kept(layers, rows) if rows else read + written
        time += share * (self._kept_time(read, kept) if i else fit.moved * self._moved(read))
        time += share * (self._kept_time(written, kept) if i < len(layers) - 1 else fit.moved * self._moved(written))
        return time + (fit.strip * strips if rows else 0.0)

    def _lanewise(self, layer: Layer) -> float:
        """Copies and work lane by lane: its bytes and operations."""
        views: tuple[View, ...] = (*layer.reads, layer.output)
        size = sum(view.storage.pixels * view.channels * SIZES[view.number] for view in views) / self.threads
        operations = layer.output.storage.pixels * layer.output.channels * (1 + len(layer.epilogue)) / self.vector
        if layer.op == "copy":
            operations *= self.vector
        return operations / self.threads / self.model.loads_per_ns + self._moved(size)

    def kept(self, layers: Sequence[Layer], rows: int) -> float:
        """Bytes that a kernel reads again for each strip of `rows` of the output: what its stages before the last keep,
        and the weights of all but the largest."""
        weights = sorted(layer.weight.nbytes for layer in layers if layer.weight is not None)
        total = float(sum(weights[:-1]))
        for layer, following in zip(layers[-2::-1], layers[:0:-1], strict=True):
            if following.windowed:
                assert isinstance(following.op, ops.Conv | ops.Pool)
                rows = (rows - 1) * following.op.stride[0] + following.reach[0]
            storage = layer.output.storage
            total += min(rows, storage.height) * storage.width * layer.lanes(self.vector) * self._kept(layer, following)
        return total

    def _kept_time(self, size: float, kept: float) -> float:
        """Nanoseconds to write or read a map of `size` bytes between two stages, if the kernel keeps `kept` in all:
        nothing hides the time of what does not fit the second level."""
        near = min(1.0, self.fit.near * self.model.second_level_bytes / max(kept, 1.0))
        return (
            self.fit.stored * near * size / self.model.second_level_bytes_per_ns
            + self.fit.moved * (1 - near) * size / self.model.third_level_bytes_per_ns
        )

    def _kept(self, layer: Layer, reader: Layer) -> int:
        """Bytes of a number of one stage's result: for a product, as it multiplies them."""
        size = SIZES[layer.output.number]
        return 2 * size if reader.bytes and reader.matrix and self._dot(reader) <= 2 else size

    def _dot(self, layer: Layer) -> int:
        """Products that one instruction adds to a sum."""
        return self.machine.dot if layer.bytes else 1

    def _products(self, layer: Layer) -> float:
        """Vectors of sums to which products are added, per nanosecond."""
        return self.model.dots_per_ns if layer.bytes else self.model.multiply_adds_per_ns

    def _widened(self, layer: Layer, weights: int) -> float:
        """Products' worth of widening vectors of int8 weights to 16 bits."""
        return WIDENING * weights if layer.bytes and self._dot(layer) <= 2 else 0.0

    def _terms(self, layer: Layer, terms: int) -> int:
        """Products of vectors that a sum takes."""
        return math.ceil(terms / self._dot(layer))

    def _end(self, layer: Layer) -> float:
        """Nanoseconds of the epilogue of a vector of sums, and of storing it."""
        fit, steps = self.fit, len(layer.epilogue)
        if layer.output.number == "uint8":
            return fit.step * (steps - 1) / self.model.multiply_adds_per_ns + 1 / self.model.requantized_per_ns
        return (fit.result + fit.step * steps) / self.model.multiply_adds_per_ns

    def _slowest(self, limits: Sequence[float]) -> float:
        most = max(limits)
        return float(most * sum((limit / most) ** self.fit.sharpness for limit in limits) ** (1 / self.fit.sharpness))

    def _rate(self, size: float) -> float:
        """Bytes per nanosecond of `size` bytes that a kernel reads again and again: what fits comes from the second
        level, of the rest what fits from the third."""
        model, near = self.model, self.fit.near
        second = min(1.0, near * model.second_level_bytes / size)
        third = min(1.0, near * model.third_level_bytes / size) - second
        return 1 / (
            second / model.second_level_bytes_per_ns
            + third / model.third_level_bytes_per_ns
            + (1 - second - third) / model.memory_bytes_per_ns
        )

    def _moved(self, size: float) -> float:
        """Nanoseconds to move a map of `size` bytes from one kernel to the next: what does not fit the second level
        counts as in memory, because other programs use the third, too."""
        second = min(size, self.fit.near * self.model.second_level_bytes)
        return second / self.model.second_level_bytes_per_ns + (size - second) / self.model.memory_bytes_per_ns
