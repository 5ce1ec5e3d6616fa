"""Working memory of a kernel, per thread: strips of what its stages compute, converted bytes, and a panel of widened
weights.

Where a level multiplies bytes in another form, a matrix product converts those of a strip, or of a tile of pixels,
before it adds up their products. Within a kernel the stage before converts them.
"""

import math

from smallcnn.compiler.arithmetic import Machine, depth_of
from smallcnn.compiler.specs import Chain, Conv, Depthwise, Pointwise, Pool, Separable, Spec, Winograd
from smallcnn.compiler.storage import up
from smallcnn.compiler.winograd import KERNEL, transform
from smallcnn.ir.types import SIZES

_STACK = 16 * 1024
"""Bytes up to which Halide keeps an array of constant size on the stack."""
_BLOCK = 128
"""Bytes that a block of working memory takes besides its own, at most (`program.Program`)."""
_SLACK = 64
"""Bytes that the last vector may be read beyond the end."""


def scratch_bytes(spec: Spec, machine: Machine) -> int:
    """Bytes that a thread needs to run the kernel."""
    match spec:
        case Chain():
            panels = sum(_panel(stage, machine) for stage in (*spec.stages, spec.last))
            first = spec.stages[0]
            pixels = (spec.folds[0] + 2) * spec.plane[0]
            converted = _converted(first, pixels, machine) if isinstance(first, Pointwise) else 0
            return _chain(spec, machine) + converted + panels
        case Separable():
            sink, window = spec.depthwise.sink, spec.depthwise.window
            size = _size(spec.depthwise, spec, machine)
            return sink.lanes * window.out_width * (spec.rows + 1) * size + _SLACK + _panel(spec, machine)
        case Conv():
            pixels = spec.rows * spec.window.out_width * spec.sink.groups
            converted = _converted(spec, pixels, machine) if spec.direct else 0  # else its strip holds them
            return _strip(spec, machine) + converted + _panel(spec, machine)
        case Winograd():
            return _tiles(spec, machine)
        case Pointwise():
            tile = _converted(spec, spec.tile.pixels, machine)
            return (tile if tile > _STACK else 0) + _panel(spec, machine)
        case _:
            return getattr(spec, "scratch_bytes", 0)


def _tiles(spec: Winograd, machine: Machine) -> int:
    """A row of tiles with its columns transformed, a strip's tiles, their sums for the lanes of a register tile, and of
    bytes the filters of these lanes, transformed."""
    side, of = spec.tile.side, spec.bytes
    depth, number = depth_of(spec.source.channels, of, machine), machine.byte_size if of else SIZES["float32"]
    size, across = transform(side).size, -(-spec.window.out_width // side)
    tiles, lanes = max(across * spec.rows // side, spec.tile.pixels), spec.tile.vectors * machine.vector
    columns = size * (across * side + KERNEL - 1)
    numbers = depth * (columns + size**2 * (tiles + (lanes if of else 0)))
    return numbers * number + size**2 * tiles * lanes * SIZES["int32"] + 4 * (_SLACK + _BLOCK)


def _strip(spec: Conv, machine: Machine) -> int:
    """A strip of the source with its border."""
    if spec.direct:
        return 0
    window, channels = spec.window, spec.source.channels
    height = (spec.rows - 1) * window.stride[0] + window.reach[0]
    width = max(window.read_width, window.before[1] + window.width) if spec.image else window.read_width
    size = machine.byte_size if spec.bytes else SIZES["float32"]
    return height * (width * (channels + 3 if spec.bytes else channels) + _SLACK) * spec.sink.groups * size


def _chain(spec: Chain, machine: Machine) -> int:
    """The rows kept of each stage, and of the image."""
    total, (width, _) = 0, spec.plane
    readers = (*spec.stages[1:], spec.last)
    for stage, reader, rows in zip(spec.stages, readers, spec.folds, strict=True):
        if isinstance(stage, Conv):
            window = stage.window
            taken = (rows - 1) * window.stride[0] + window.reach[0] + 1
            columns = max(window.read_width, window.before[1] + window.width)
            size = machine.byte_size if stage.bytes else SIZES["float32"]
            total += taken * (columns * stage.source.channels + _SLACK) * size + _BLOCK
        if not isinstance(stage, Pointwise):
            width = stage.window.out_width
        total += (stage.sink.lanes * width * (rows + 2) + _SLACK) * _size(stage, reader, machine) + _BLOCK
    return total


def _size(stage: Conv | Pointwise | Depthwise | Pool, reader: object, machine: Machine) -> int:
    """Bytes of a number that a stage computes, as its reader takes it."""
    if isinstance(reader, Pointwise | Separable) and reader.bytes:
        return machine.byte_size
    return SIZES[stage.sink.number]


def _converted(stage: Pointwise | Conv, pixels: int, machine: Machine) -> int:
    """Bytes of converted pixels; 0 where none need be."""
    if stage.bytes is None:
        return 0
    first, *more = _terms(stage, machine)
    size = machine.converted(first) * math.prod(more) * pixels * machine.byte_size
    return size + _BLOCK if size else 0


def _panel(stage: Spec, machine: Machine) -> int:
    """Bytes of a panel of weights, widened; 0 where the stack holds them."""
    if not isinstance(stage, Pointwise | Conv | Separable) or stage.bytes is None or not stage.tile.widened:
        return 0
    first, *more = _terms(stage, machine)
    terms = up(first, machine.dot) * math.prod(more)
    return _kept(terms * stage.tile.vectors * machine.vector * machine.byte_size)


def _terms(stage: Pointwise | Conv | Separable, machine: Machine) -> tuple[int, ...]:
    """Extents of a sum's terms, the first one's neighbours in memory."""
    if not isinstance(stage, Conv):
        return (depth_of(stage.source.channels, stage.bytes, machine),)
    return stage.window.terms(depth_of(stage.source.channels, None if stage.image else stage.bytes, machine))


def _kept(size: int) -> int:
    """An array's bytes; 0 where the stack holds it."""
    return size + _BLOCK if size > _STACK else 0
