"""The choices for a kernel, least estimated time first.

    choices(layers, context, threads) -> list[Choice]

Tiles of every stage, neighbours of depthwise stages, rows of a strip, tiles within a row or across rows, and whether
threads share lanes or pixels. The plan takes the first; `tune` times the first few.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from smallcnn.compiler.calls import Context
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.reading import even_step
from smallcnn.compiler.sides import terms_of
from smallcnn.compiler.specs import Tile
from smallcnn.compiler.winograd import SIDES
from smallcnn.ir import ops
from smallcnn.ir.types import SIZES

_WASTE = 1.35
"""Sums that a tile may compute for each that is wanted, at a row's end or in the last vectors."""
_PASSES = 3
"""Tiles of pixels that pass a panel of weights, at least, where these are widened once for all, or fetched ahead."""
_PANEL_BYTES = 32 * 1024
"""Of widened weights, at most: with those of more channels each tile would read them from the second level."""
_FEW = 400
"""Pixels of a map whose weights are fetched ahead, at most: with more, nothing was gained (Zen 4)."""
_NEAR = 0.6
"""Share of the first-level cache that the rows of a depthwise layer's windows may fill."""
_BLOCK = 4
"""Vectors of lanes that pass together, at least: with fewer, too little lies side by side."""
_BUSY = 0.5
"""Registers in use, as a share of those of the largest tile that fits."""
_LENGTHS = 8
"""Lengths of strips considered, from one row to a thread's share of the map."""
_EQUAL = 1.01
"""Times that count as equal: of these, strips come first that keep about half of the second-level cache."""


def choices(layers: Sequence[Layer], context: Context, threads: int, variants: int = 4) -> list[Choice]:
    """Choices for the layers as one kernel, with up to `variants` tiles for each stage; one empty choice if there is
    nothing to choose."""
    if not (layers[0].matrix or layers[0].windowed):
        return [Choice()]
    found: dict[Choice, float] = {}
    estimator = context.estimator(threads)
    for rows in (*_rows(layers, threads), *_tile_rows(layers, threads, context)):
        for shares in _shares(layers, threads, context.vector):
            stages = []
            for i in range(len(layers)):
                times = {
                    tile: estimator.stage(layers, i, tile, rows, shares)
                    for tile in _tiles(layers, i, rows, shares, context)
                }
                stages.append(sorted(times, key=times.__getitem__)[:variants])
            if not all(stages):
                continue
            best = [tiles[0] for tiles in stages]
            for i, tiles in enumerate(stages):
                for tile in tiles:
                    choice = Choice((*best[:i], tile, *best[i + 1 :]), rows, shares)
                    if choice not in found:
                        found[choice] = estimator.kernel(layers, choice)
    ranked = sorted(found, key=found.__getitem__)
    close = [choice for choice in ranked if found[choice] <= _EQUAL * found[ranked[0]]]
    half = context.model.second_level_bytes / 2
    first = min(close, key=lambda choice: abs(math.log((estimator.kept(layers, choice.rows) + 1) / half)))
    return [first, *(choice for choice in ranked if choice is not first)]


def _rows(layers: Sequence[Layer], threads: int) -> list[int]:
    """Rows of a strip; 0 for kernels without strips. Strips of different lengths that are equally many are one."""
    last = layers[-1]
    if len(layers) == 1 and (last.windowed or last.unstripped):
        return [0]
    if _keeps_two(layers):
        return [1]
    height = last.output.storage.height
    found: dict[int, int] = {}
    longest = math.ceil(height / threads)
    for rows in range(1, longest + 1):
        strips = math.ceil(height / rows)
        if rows == longest or strips % threads == 0 or strips > 3 * threads:
            found.setdefault(strips, rows)  # the shortest strips of their number waste least
    kept = sorted(found.values())
    count = min(_LENGTHS, len(kept))
    return sorted({kept[round(i * (len(kept) - 1) / max(count - 1, 1))] for i in range(count)})


def _tile_rows(layers: Sequence[Layer], threads: int, context: Context) -> list[int]:
    """Rows of a strip of whole tiles of a 3x3 convolution, with one tile or more in a column."""
    if not _minimal(layers, context):
        return []
    height, side = layers[0].output.storage.height, min(SIDES) if layers[0].bytes else max(SIDES)
    tiles = math.ceil(height / side)
    return sorted({side * math.ceil(tiles / n) for n in range(1, tiles + 1) if n == 1 or n % threads == 0})


def _minimal(layers: Sequence[Layer], context: Context) -> bool:
    """Whether a kernel may compute by minimal filtering: with floats, whose weights are more and must be fetched in
    time; with bytes where they are multiplied as 16 bits, if 4 times their sum fits 32."""
    first, *more = layers
    if more or not first.small_filters or first.inputs[0].channels < context.vector:
        return False
    if first.bytes:
        weight = 255 if first.bytes.weight_zero else 128
        most = 9 * first.inputs[0].channels * 255 * weight
        return context.machine.dot == 2 and 4 * most < 2**31
    return context.machine.prefetches and not context.compact


def _keeps_two(layers: Sequence[Layer]) -> bool:
    """Whether rows of two stages are kept from strip to strip. In strips of more rows than one the first stage's would
    be computed twice."""
    return sum(layer.windowed for layer in layers[1:]) > 1


def _shares(layers: Sequence[Layer], threads: int, vector: int) -> list[int]:
    """In how many groups of lanes threads share a pointwise layer; 1: they share its pixels."""
    first = layers[0]
    if threads == 1 or len(layers) > 1 or not first.unstripped or first.groups > 1 or not first.matrix:
        return [1]
    if even_step(first.inputs[0], 1) is None:
        return [1]
    vectors = first.lanes(vector) // vector
    return [n for n in (1, 2, 4, 8) if n in (1, threads, 2 * threads) and vectors % n == 0]


def _tiles(layers: Sequence[Layer], i: int, rows: int, shares: int, context: Context) -> Iterator[Tile]:
    """Tiles of a stage, with weights widened once, or fetched ahead, where that pays."""
    for tile in _shapes(layers, i, rows, shares, context):
        several = _strip_pixels(layers, i, rows) >= _PASSES * tile.pixels
        widened = several and _widened(layers[i], tile, context)
        yield replace(tile, widened=widened, ahead=several and not widened and _ahead(layers[i], context))
    if rows and _minimal(layers, context):
        yield from _minimal_tiles(layers[0], rows, context)


def _minimal_tiles(layer: Layer, rows: int, context: Context) -> Iterator[Tile]:
    """Register tiles of a 3x3 convolution by minimal filtering, whose pixels are tiles of outputs.

    Two vectors at least: the tiles lie evenly apart, and a Zen 4 reads one of them a cycle, as they share a bank of its
    first-level cache (14x1 takes twice as long as 6x2).
    """
    vectors, width, of = layer.lanes(context.vector) // context.vector, layer.output.storage.width, layer.bytes
    terms = math.ceil(layer.inputs[0].channels / (context.machine.dot if of else 1))
    unroll = next(n for n in (4, 3, 2, 1) if terms % n == 0)
    registers = context.machine.registers - (2 if of else 0)
    for side in SIDES[:1] if of else SIDES:  # of the larger tiles, transforms are no whole numbers
        tiles = math.ceil(width / side) * (rows // side)
        for wide in range(min(2, vectors), min(vectors, registers // 2) + 1):
            for pixels in range(1, min(tiles, (registers - wide - 1) // wide) + 1):
                used = pixels * wide >= _BUSY * _most(wide, vectors, tiles, registers)
                if rows % side == 0 and used and _fits(vectors, wide) and _fits(tiles, pixels):
                    yield Tile(pixels, wide, unroll, widened=bool(of), ahead=not of, side=side)


def _fits(length: int, step: int) -> bool:
    """Whether steps as long as `step` waste little of a length."""
    return math.ceil(length / step) * step <= _WASTE * length


def _shapes(layers: Sequence[Layer], i: int, rows: int, shares: int, context: Context) -> Iterator[Tile]:
    """Tiles that use the registers well and waste little. Neighbours divide a row where they can.

    Besides sums and weights, a pixel takes a register, and products of pairs, which are then added, two more: with one,
    some sums go through the stack.
    """
    layer, out, machine = layers[i], layers[i].output.storage, context.machine
    if rows > layers[-1].output.storage.height:
        return
    if layer.windowed:
        if isinstance(layer.op, ops.Pool) and layer.op.kernel[1] <= layer.op.stride[1]:
            yield Tile(1, 1)  # windows that do not overlap share no loads
            return
        even = [pixels for pixels in range(3, 9) if out.width % pixels == 0]
        block = _block(layers, i, rows, context)
        for pixels in even or sorted({min(out.width, n) for n in (4, 5, 6, 7)}):
            yield Tile(pixels, 1, block=block)
        return
    vectors = layer.lanes(context.vector) // context.vector // layer.groups // shares
    unroll = next(n for n in (4, 3, 2, 1) if _depth(layers, i, context) % n == 0)
    last = i == len(layers) - 1
    plane = rows or not last  # in rows; otherwise pixels are counted through the map
    registers = machine.registers - (2 if layer.bytes and machine.dot == 2 else 0)
    for wide in range(1, min(vectors, registers // 2) + 1):
        for pixels in range(1, (registers - wide - 1) // wide + 1):
            if pixels * wide < _BUSY * _most(wide, vectors, out.width if plane else out.pixels, registers):
                continue
            if not _fits(vectors, wide):
                continue
            if not plane:
                if pixels <= out.pixels:
                    yield Tile(pixels, wide, unroll)
                continue
            if pixels <= out.width and _fits(out.width, pixels):
                yield Tile(pixels, wide, unroll)
            if last and pixels <= rows * out.width and out.width % pixels and not _keeps_two(layers):
                yield Tile(pixels, wide, unroll, across=True)


def _strip_height(layers: Sequence[Layer], i: int, rows: int) -> int:
    """Rows of a stage in a strip, or all."""
    height = layers[i].output.storage.height
    return math.ceil(height * rows / layers[-1].output.storage.height) if rows else height


def _strip_pixels(layers: Sequence[Layer], i: int, rows: int) -> int:
    """Pixels of a stage that pass a panel of weights: those of a strip, or all."""
    return _strip_height(layers, i, rows) * layers[i].output.storage.width


def _block(layers: Sequence[Layer], i: int, rows: int, context: Context) -> int:
    """Vectors of lanes whose rows a depthwise layer computes first, so that each row comes from the second level only
    once; 0 where that is so anyway, or where the map is further away and long runs arrive sooner."""
    layer, model, source = layers[i], context.model, layers[i].inputs[0].storage
    height, vectors = _strip_height(layers, i, rows), layer.lanes(context.vector) // context.vector
    if not layer.depthwise or layer.bytes or height == 1:
        return 0
    assert isinstance(layer.op, ops.Conv)
    row = source.width * context.vector * SIZES[source.number]
    window, strip = layer.reach[0] * row, min(height * layer.op.stride[0] + layer.reach[0], source.height) * row
    if window * vectors <= model.first_level_bytes or strip * vectors > model.second_level_bytes:
        return 0
    fitting = [n for n in range(_BLOCK, vectors) if vectors % n == 0 and n * window <= _NEAR * model.first_level_bytes]
    return max(fitting, default=0)


def _widened(layer: Layer, tile: Tile, context: Context) -> bool:
    """Whether the weights of several tiles are widened once: bytes that are multiplied as 16 bits."""
    if not layer.bytes or layer.weight is None or context.machine.dot != 2:
        return False
    return 2 * layer.weight[0].size * tile.vectors * context.vector <= _PANEL_BYTES


def _ahead(layer: Layer, context: Context) -> bool:
    """Whether the weights of several tiles are fetched before they are read."""
    return layer.matrix and context.machine.prefetches and layer.output.storage.pixels <= _FEW


def _most(wide: int, vectors: int, pixels: int, registers: int) -> int:
    """Sums of the largest tile of `wide` vectors, or of the map if that is smaller."""
    return min((registers - wide - 1) // wide * wide, pixels * vectors)


def _depth(layers: Sequence[Layer], i: int, context: Context) -> int:
    """Terms of the innermost loop: the channels, and in a strip a window's columns, if they are neighbours."""
    layer = layers[i]
    columns = layer.op.kernel[1] if isinstance(layer.op, ops.Conv) and not layer.apart else 1
    if layer.from_image:
        return context.input_shape[2] * columns
    channels = terms_of(layer, layers[i - 1], context.vector) if i else layer.inputs[0].channels // layer.groups
    return channels * columns
