"""From layers to calls: what is fused, in which tiles, how threads share it.

    plan(layers, machine) -> list[Call]
"""

from collections.abc import Sequence

from smallcnn import ops
from smallcnn.compiler import calls
from smallcnn.compiler.calls import Call, Normalisation
from smallcnn.compiler.kernels.matmul import Tile
from smallcnn.compiler.kernels.pipe import Machine
from smallcnn.compiler.layers import Layer, Plus, View, up

_CACHE = 40_000  # floats that a strip of intermediate rows may take: a third of a 512 KiB second-level cache
_CHAIN = 100_000
_LARGE = 150_000  # floats of an expanded map from which on it is never written as a whole
_SMALL = 40_000  # weights that stay in the second-level cache beside a strip
_TILES = ((6, 2), (5, 2), (4, 3), (4, 2), (3, 2), (2, 5), (2, 4), (2, 3), (12, 1), (10, 1), (8, 1), (6, 1), (4, 1), (2, 1), (2, 2),
          (1, 1), (1, 2), (1, 4), (1, 8), (1, 3), (1, 6), (3, 3), (3, 4))  # fmt: skip


def plan(
    layers: Sequence[Layer], answer: View, machine: Machine, image: Normalisation, input_shape: tuple[int, int, int]
) -> list[Call]:
    """Calls in order."""
    readers: dict[int, int] = {}
    for layer in layers:
        for view in layer.reads:
            for storage in set(view.storages):
                readers[id(storage)] = readers.get(id(storage), 0) + 1
    readers[id(answer.storage)] = readers.get(id(answer.storage), 0) + 1
    result: list[Call] = []
    waiting = list(layers)
    while waiting:
        call = _chain(waiting, readers, machine) or _strips(waiting, readers, machine)
        call = call or _single(waiting[0], machine, image, input_shape)
        result.append(call)
        del waiting[: len(call.layers)]
    return result


def _chain(waiting: Sequence[Layer], readers: dict[int, int], machine: Machine) -> Call | None:
    """A whole inverted residual where the expanded map is large and the weights are small."""
    if len(waiting) < 3:
        return None
    first, second, third = waiting[:3]
    if not (_pointwise(first) and _feeds(first, second, readers) and _separable(second, third, readers)):
        return None
    if any(isinstance(step, Plus) for step in first.epilogue) or not first.inputs[0].contiguous:
        return None
    middle, out = first.output.storage, second.output.storage
    if middle.floats < _LARGE:
        return None
    stride, kernel = second.op.stride[0], second.op.kernel[0]  # type: ignore[union-attr]
    row = middle.width * middle.lanes

    def kept(rows: int) -> int:
        return ((rows - 1) * stride + kernel) * row + rows * out.width * out.lanes

    rows = max((r for r in _divisors(out.height) if kept(r) <= _CHAIN), default=1)
    expand = best_tile(middle.width, middle.lanes, first.inputs[0].channels, machine)
    lanes = up(third.op.out, machine.vector)  # type: ignore[union-attr]
    project = best_tile(rows * out.width, lanes, out.lanes, machine)
    return calls.bottleneck(first, second, third, (expand, project), _pixels(out.width), rows, machine.vector)


def _strips(waiting: Sequence[Layer], readers: dict[int, int], machine: Machine) -> Call | None:
    """A depthwise convolution with the pointwise one behind it, where there are pixels enough to share."""
    if len(waiting) < 2 or not _separable(waiting[0], waiting[1], readers):
        return None
    first, second = waiting[:2]
    middle = first.output.storage
    lanes = up(second.op.out, machine.vector)  # type: ignore[union-attr]
    if middle.pixels < 100:
        return None
    limit = _CACHE if middle.lanes * lanes <= _SMALL else _CACHE * 5 // 2
    rows = max((r for r in _divisors(middle.height) if r * middle.width * middle.lanes <= limit and (r < middle.height)), default=0)
    if not rows:
        return None
    tile = best_tile(rows * middle.width, lanes, middle.lanes, machine)
    return calls.separable(first, second, _pixels(middle.width), tile, rows, machine.vector)


def _single(layer: Layer, machine: Machine, image: Normalisation, input_shape: tuple[int, int, int]) -> Call:
    out = layer.output.storage
    if isinstance(layer.op, ops.Conv) and calls._is_depthwise(layer):
        return calls.depthwise_conv(layer, _pixels(out.width), machine.vector)
    if isinstance(layer.op, ops.Conv) and (layer.from_image or layer.op.kernel != (1, 1) or layer.op.stride != (1, 1) or layer.op.padding != ops.NO_PADDING):
        groups = layer.op.groups
        shape = input_shape if layer.from_image else (layer.inputs[0].storage.height, layer.inputs[0].storage.width, layer.inputs[0].channels)
        depth = shape[2] // groups
        padded = (shape[1] + 4) * (shape[2])
        rows = max((r for r in _divisors(out.height) if (r + 2) * padded * layer.op.stride[0] <= _CACHE), default=1)
        lanes = up(layer.op.out // groups, machine.vector)
        tile = best_tile(rows * out.width, lanes, depth, machine)
        return calls.convolution(layer, tile, rows, machine.vector, image if layer.from_image else None, shape)
    if isinstance(layer.op, ops.Conv | ops.Dense):
        groups = layer.op.groups if isinstance(layer.op, ops.Conv) else 1
        depth = layer.inputs[0].channels // groups
        lanes = up(layer.op.out // groups, machine.vector)
        blocks = 1
        if groups == 1 and depth * lanes > 100_000 and calls._group_step(layer.inputs[0], 1) is not None:
            vectors = lanes // machine.vector
            blocks = max((b for b in (2, 4) if vectors % b == 0 and vectors // b >= 4), default=1)
        tile = best_tile(out.pixels, lanes // blocks, depth, machine)
        return calls.pointwise(layer, tile, machine.vector, blocks)
    return calls.per_lane(layer, machine.vector, image)


def _pointwise(layer: Layer) -> bool:
    op = layer.op
    return (
        isinstance(op, ops.Conv)
        and op.groups == 1
        and op.kernel == op.stride == (1, 1)
        and op.padding == ops.NO_PADDING
        and not layer.from_image
    )


def _feeds(first: Layer, second: Layer, readers: dict[int, int]) -> bool:
    """Whether `second` is all that reads what `first` makes, in a storage of its own."""
    made = first.output.storage
    return bool(second.inputs) and set(second.inputs[0].storages) == {made} and readers[id(made)] == 1


def _separable(first: Layer, second: Layer, readers: dict[int, int]) -> bool:
    return calls._is_depthwise(first) and _pointwise(second) and _feeds(first, second, readers)


def _pixels(width: int) -> int:
    return min(width, min((7, 6, 5, 4), key=lambda x: up(width, x) / x * (x + 1)))


def best_tile(pixels: int, lanes: int, depth: int, machine: Machine) -> Tile:
    """The register tile with the least estimated work."""
    vectors = lanes // machine.vector

    def work(tile: tuple[int, int]) -> float:
        p, v = tile
        turns = -(-pixels // p) * -(-vectors // v)
        loads, products = p + v, p * v
        return turns * (max(products, 0.75 * loads, 9.3 if products < 10 else 0) * depth + 2 * products + 10)

    fits = [t for t in _TILES if t[0] <= pixels and t[1] <= vectors and t[0] * t[1] + t[1] + 1 <= machine.registers]
    p, v = min(fits, key=work)
    unroll = next(u for u in (4, 3, 2, 1) if depth % u == 0)
    return Tile(p, v, unroll)


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]
