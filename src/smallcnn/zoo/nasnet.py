"""NASNet-A: Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012.

Input (resolution, resolution, channels); output (classes,) logits. Cells are the paper's Figure 4, read with the
authors' code (TensorFlow-Slim, research/slim/nets/nasnet): an unpadded stem, SAME padding elsewhere, batch norm epsilon
0.001, averages that exclude the padding. The auxiliary head, which only training uses, is not built.
"""

from collections.abc import Callable
from typing import Annotated, Unpack

from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Allowed, Common
from smallcnn.zoo.registry import register

_EPSILON = 0.001
_CELLS = Allowed("from 1 to 20", lambda count: 1 <= count <= 20, (4,), "the paper's mobile network has 4")
_FILTERS = Allowed(
    "a multiple of 96", lambda count: count > 0 and count % 96 == 0, (1056,), "the paper's mobile network has 1056"
)
_Cell = Callable[[Builder, Node, Node, str], Node]


@register
def nasnet_a_mobile(
    g: Builder,
    *,
    cells: Annotated[int, _CELLS] = 4,
    filters: Annotated[int, _FILTERS] = 1056,
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """NASNet-A (`cells` @ `filters`): three stacks of `cells` normal cells, `filters` channels in the last map.

    The mobile network is 4 @ 1056 (Table 3). `small_input` gives the stem stride 1, for images of 28 to 64 pixels.

    Raises GraphError if an option is out of range or the image is too small for the reductions.
    """
    height, width, _ = g.input.shape
    if min(height, width) < (least := 11 if small_input else 19):
        raise GraphError(f"resolution must be at least {least} for nasnet_a_mobile, not {height}x{width}")
    x = g.conv_bn(
        g.input, 32, kernel=3, stride=1 if small_input else 2, padding=0, epsilon=_EPSILON, activation=None, name="stem"
    )
    before: Node | None = None  # the input of the previous cell
    reduced = False  # whether that cell halved the plane
    for i, (cell, f) in enumerate(_layout(cells, filters // 24), start=1):
        match = _halved if reduced else _projected
        p = match(g, before, f, f"cell{i}.p") if before is not None else x  # the first cell reads the stem directly
        h = _projected(g, x, f, f"cell{i}.h")
        before, x, reduced = x, cell(g, h, p, f"cell{i}"), cell is _reduction
    x = g.activation(x, "relu", name="act")
    return pooled(g, x, common["classes"], dropout=0.5)


def _layout(cells: int, width: int) -> list[tuple[_Cell, int]]:
    """Each cell's kind and width: two reductions after the stem, then three stacks with a reduction between them."""
    first, second, third = ([(_normal, width * factor)] * cells for factor in (1, 2, 4))
    stem = [(_reduction, width // 4), (_reduction, width // 2)]
    return [*stem, *first, (_reduction, 2 * width), *second, (_reduction, 4 * width), *third]


def _normal(g: Builder, h: Node, p: Node, name: str) -> Node:
    """(H, W, F), (H, W, F) -> (H, W, 6F): Figure 4, left."""
    f = h.shape[2]
    b1, b2, b3, b4, b5 = (f"{name}.b{i}" for i in range(1, 6))
    x1 = g.add(_separable(g, h, f, 5, 1, f"{b1}.left"), _separable(g, p, f, 3, 1, f"{b1}.right"), name=f"{b1}.add")
    x2 = g.add(_separable(g, p, f, 5, 1, f"{b2}.left"), _separable(g, p, f, 3, 1, f"{b2}.right"), name=f"{b2}.add")
    x3 = g.add(_average(g, h, 1, f"{b3}.left"), p, name=f"{b3}.add")
    mean = _average(g, p, 1, f"{b4}.mean")
    x4 = g.add(mean, mean, name=f"{b4}.add")
    x5 = g.add(_separable(g, h, f, 3, 1, f"{b5}.left"), h, name=f"{b5}.add")
    return g.concat(p, x1, x2, x3, x4, x5, name=f"{name}.concat")


def _reduction(g: Builder, h: Node, p: Node, name: str) -> Node:
    """(H, W, F), (H, W, F) -> (ceil(H/2), ceil(W/2), 4F): Figure 4, right."""
    f = h.shape[2]
    b1, b2, b3, b4, b5 = (f"{name}.b{i}" for i in range(1, 6))
    x1 = g.add(_separable(g, h, f, 5, 2, f"{b1}.left"), _separable(g, p, f, 7, 2, f"{b1}.right"), name=f"{b1}.add")
    most = g.max_pool(h, kernel=3, stride=2, name=f"{name}.max")  # blocks 2 and 5
    x2 = g.add(most, _separable(g, p, f, 7, 2, f"{b2}.right"), name=f"{b2}.add")
    x3 = g.add(_average(g, h, 2, f"{b3}.left"), _separable(g, p, f, 5, 2, f"{b3}.right"), name=f"{b3}.add")
    x4 = g.add(x2, _average(g, x1, 1, f"{b4}.right"), name=f"{b4}.add")
    x5 = g.add(_separable(g, x1, f, 3, 1, f"{b5}.left"), most, name=f"{b5}.add")
    return g.concat(x2, x3, x4, x5, name=f"{name}.concat")


def _separable(g: Builder, x: Node, width: int, kernel: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (ceil(H/stride), ceil(W/stride), width): twice ReLU, depthwise, 1x1 and batch norm."""
    for i in (1, 2):
        y = g.activation(x, "relu", name=f"{name}.act{i}")
        y = g.depthwise(y, kernel=kernel, stride=stride if i == 1 else 1, bias=False, name=f"{name}.depthwise{i}")
        y = g.conv(y, width, bias=False, name=f"{name}.pointwise{i}")
        x = g.batch_norm(y, epsilon=_EPSILON, name=f"{name}.bn{i}")
    return x


def _average(g: Builder, x: Node, stride: int, name: str) -> Node:
    return g.average_pool(x, kernel=3, stride=stride, name=name)


def _projected(g: Builder, x: Node, width: int, name: str) -> Node:
    """(H, W, C) -> (H, W, width): ReLU, 1x1, batch norm."""
    x = g.activation(x, "relu", name=f"{name}.act")
    return g.conv_bn(x, width, epsilon=_EPSILON, activation=None, name=name)


def _halved(g: Builder, x: Node, width: int, name: str) -> Node:
    """(H, W, C) -> (ceil(H/2), ceil(W/2), width): ReLU, half the channels from even pixels, half from odd ones."""
    x = g.activation(x, "relu", name=f"{name}.act")
    even = g.conv(x, width // 2, stride=2, bias=False, name=f"{name}.even")
    x = g.pad(x, ((-1, 1), (-1, 1)), name=f"{name}.shift")
    odd = g.conv(x, width // 2, stride=2, bias=False, name=f"{name}.odd")
    x = g.concat(even, odd, name=f"{name}.concat")
    return g.batch_norm(x, epsilon=_EPSILON, name=f"{name}.bn")
