"""Builds a graph layer by layer and checks every shape as it is added.

    g = Builder(input=(224, 224, 3))
    x = g.conv_bn(g.input, 32, kernel=3, stride=2, name="stem")
    x = g.depthwise_bn(x, kernel=3, name="block1.depthwise")
    features = g.conv_bn(x, 64, name="block1.pointwise")
    graph = g.graph(g.dense(g.global_pool(features), 1000, name="classifier"), features=features, name="tiny")

Each method takes and returns a Node, whose `shape` is (H, W, C), (C,) or, for rows, (N, C). Names with dots group nodes
(`block1.pointwise.conv`); the default name is the operator's kind and a number. An error names the layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from smallcnn.errors import GraphError
from smallcnn.ir import checks, ops
from smallcnn.ir.graph import Graph, Node, Output, make_node
from smallcnn.ir.ops import ActivationKind, Coordinates, Op, Padding, Pair, Rounding
from smallcnn.ir.types import LOGITS, Grid, Number, Shape

Size = int | Pair
PaddingLike = Literal["same", "ceil", "symmetric"] | int | Padding
"""'same' is TensorFlow's SAME, as numbers for this input size; 'ceil' is Caffe's rounding up: the last window's
missing pixels are added at the end; 'symmetric' is half the kernel on every side, as in most PyTorch code; one number
pads all four.
"""


class Builder:
    """Collects nodes; `graph` returns the finished network, called `name` if it is given no other."""

    def __init__(self, *, input: tuple[int, int, int], name: str = "") -> None:
        self._nodes: dict[str, Node] = {}
        self._name = name
        self.input = self._add(ops.Input, (), "input", shape=input)

    def conv(
        self,
        x: Node,
        out: int,
        *,
        kernel: Size = 1,
        stride: Size = 1,
        padding: PaddingLike = "same",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        number: Number = "float32",
        grid: Grid | None = None,
        name: str | None = None,
    ) -> Node:
        """Convolution: (H, W, C) -> (H', W', out). `kernel`, `stride`, `dilation` are (height, width) or one number.

        Weights can be stored as whole numbers on a grid, of one entry or one per output.
        """
        return self._add(
            ops.Conv, (x,), name, window=(kernel, stride, padding, dilation), out=out, groups=groups, bias=bias,
            number=number, grid=grid,
        )  # fmt: skip

    def depthwise(
        self,
        x: Node,
        *,
        kernel: Size,
        stride: Size = 1,
        padding: PaddingLike = "same",
        multiplier: int = 1,
        bias: bool = True,
        name: str | None = None,
    ) -> Node:
        """One filter per channel (`multiplier` filters): (H, W, C) -> (H', W', C * multiplier)."""
        channels = x.shape[-1]
        return self.conv(
            x, channels * multiplier, kernel=kernel, stride=stride, padding=padding, groups=channels, bias=bias,
            name=name,
        )  # fmt: skip

    def conv_bn(
        self,
        x: Node,
        out: int,
        *,
        kernel: Size = 1,
        stride: Size = 1,
        padding: PaddingLike = "same",
        groups: int = 1,
        epsilon: float = 1e-5,
        activation: ActivationKind | None = "relu6",
        bias: bool = False,
        name: str,
    ) -> Node:
        """Convolution, by default without bias, batch norm, activation: `name`.conv, `name`.bn and `name`.act."""
        x = self.conv(
            x, out, kernel=kernel, stride=stride, padding=padding, groups=groups, bias=bias, name=f"{name}.conv"
        )
        x = self.batch_norm(x, epsilon=epsilon, name=f"{name}.bn")
        return self.activation(x, activation, name=f"{name}.act") if activation else x

    def depthwise_bn(
        self,
        x: Node,
        *,
        kernel: Size,
        stride: Size = 1,
        padding: PaddingLike = "same",
        epsilon: float = 1e-5,
        activation: ActivationKind | None = "relu6",
        bias: bool = False,
        name: str,
    ) -> Node:
        """Depthwise convolution, batch norm, activation: (H, W, C) -> (H', W', C)."""
        channels = x.shape[-1]
        return self.conv_bn(
            x, channels, kernel=kernel, stride=stride, padding=padding, groups=channels, epsilon=epsilon,
            activation=activation, bias=bias, name=name,
        )  # fmt: skip

    def batch_norm(self, x: Node, *, epsilon: float = 1e-5, name: str | None = None) -> Node:
        """Batch normalisation over each channel."""
        return self._add(ops.BatchNorm, (x,), name, epsilon=epsilon)

    def activation(self, x: Node, function: ActivationKind, *, slope: float = 0.01, name: str | None = None) -> Node:
        """An elementwise function; `slope` is leaky_relu's."""
        return self._add(ops.Activation, (x,), name, function=function, slope=slope)

    def prelu(self, x: Node, *, name: str | None = None) -> Node:
        """x, or below 0 a learned slope times x, one for each channel."""
        return self._add(ops.PRelu, (x,), name)

    def exp(self, x: Node, *, name: str | None = None) -> Node:
        """e to the power of x."""
        return self._add(ops.Exp, (x,), name)

    def clip(self, x: Node, low: float, high: float, *, name: str | None = None) -> Node:
        """min(max(x, low), high)."""
        return self._add(ops.Clip, (x,), name, low=low, high=high)

    def pad(self, x: Node, padding: Padding, *, name: str | None = None) -> Node:
        """Zeros around a map; negative numbers crop."""
        return self._add(ops.Pad, (x,), name, padding=padding)

    def max_pool(
        self,
        x: Node,
        *,
        kernel: Size,
        stride: Size,
        padding: PaddingLike = "same",
        name: str | None = None,
    ) -> Node:
        """Maximum over a window: (H, W, C) -> (H', W', C)."""
        return self._add(ops.Pool, (x,), name, window=(kernel, stride, padding), function="max")

    def average_pool(
        self,
        x: Node,
        *,
        kernel: Size,
        stride: Size,
        padding: PaddingLike = "same",
        count_padding: bool = False,
        name: str | None = None,
    ) -> Node:
        """Mean over a window: (H, W, C) -> (H', W', C); `count_padding` divides by the whole window at borders."""
        window = (kernel, stride, padding)
        return self._add(ops.Pool, (x,), name, window=window, function="average", count_padding=count_padding)

    def resize(
        self,
        x: Node,
        height: int,
        width: int,
        *,
        mode: Literal["nearest", "bilinear"],
        coordinates: Coordinates = "half_pixel",
        rounding: Rounding = "floor",
        name: str | None = None,
    ) -> Node:
        """Another size of a map: (H, W, C) -> (height, width, C); `rounding` is that of "nearest"."""
        return self._add(
            ops.Resize, (x,), name, height=height, width=width, mode=mode, coordinates=coordinates, rounding=rounding
        )

    def global_pool(self, x: Node, *, name: str | None = None) -> Node:
        """Mean over the plane: (H, W, C) -> (C,)."""
        return self._add(ops.GlobalPool, (x,), name)

    def flatten(self, x: Node, *, name: str | None = None) -> Node:
        """(H, W, C) -> (H * W * C,) or (N, C) -> (N * C,), channels fastest."""
        return self._add(ops.Flatten, (x,), name)

    def dense(
        self,
        x: Node,
        out: int,
        *,
        bias: bool = True,
        number: Number = "float32",
        grid: Grid | None = None,
        name: str | None = None,
    ) -> Node:
        """Fully connected: (C,) -> (out,). Weights as for `conv`."""
        return self._add(ops.Dense, (x,), name, out=out, bias=bias, number=number, grid=grid)

    def add(self, *xs: Node, name: str | None = None) -> Node:
        """Elementwise sum of tensors of one shape."""
        return self._add(ops.Add, xs, name)

    def sub(self, x: Node, y: Node, *, name: str | None = None) -> Node:
        """Elementwise difference x - y of tensors of one shape."""
        return self._add(ops.Sub, (x, y), name)

    def scale(self, x: Node, factors: Node, *, name: str | None = None) -> Node:
        """Channels of a map times a vector: (H, W, C), (C,) -> (H, W, C)."""
        return self._add(ops.Scale, (x, factors), name)

    def concat(self, *xs: Node, name: str | None = None) -> Node:
        """Joins along the channels."""
        return self._add(ops.Concat, xs, name)

    def rows(self, x: Node, columns: int, *, name: str | None = None) -> Node:
        """A map read as rows: (H, W, A * columns) -> (H * W * A, columns)."""
        return self._add(ops.Rows, (x,), name, columns=columns)

    def join(self, *xs: Node, name: str | None = None) -> Node:
        """Joins rows."""
        return self._add(ops.Join, xs, name)

    def detections(
        self, detect: ops.Detect, coded: Node, scores: Node, objectness: Node | None = None, *, name: str = "detect"
    ) -> dict[str, Node]:
        """The outputs of a detector, by name, for `graph`."""
        inputs = (coded, scores) if objectness is None else (coded, scores, objectness)
        found = self._add(ops.Detect, inputs, f"{name}.found", **vars(detect))
        boxes, score, number = self.split(found, [4, 1, 1], name=f"{name}.fields")
        return {
            "boxes": boxes,
            "scores": self.flatten(score, name=f"{name}.scores"),
            "classes": self.flatten(number, name=f"{name}.classes"),
            "count": self._add(ops.Count, (score,), f"{name}.count"),
        }

    def shuffle(self, x: Node, groups: int, *, name: str | None = None) -> Node:
        """Channel shuffle."""
        return self._add(ops.Shuffle, (x,), name, groups=groups)

    def split(self, x: Node, sizes: Sequence[int], *, name: str | None = None) -> list[Node]:
        """Cuts the channels into consecutive parts of these sizes, which cover them all; named `name`.0, .1, ..."""
        base = name or self._number("split")
        if sum(sizes) != x.shape[-1]:
            raise GraphError(f"{base}: parts of {list(sizes)} channels do not add up to {x.shape[-1]}")
        stops = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [
            self._add(ops.Slice, (x,), f"{base}.{i}", start=stop - size, stop=stop)
            for i, (size, stop) in enumerate(zip(sizes, stops, strict=True))
        ]

    def local_response_norm(
        self, x: Node, *, size: int, alpha: float, beta: float, bias: float, name: str | None = None
    ) -> Node:
        """Normalisation over neighbouring channels."""
        return self._add(ops.LocalResponseNorm, (x,), name, size=size, alpha=alpha, beta=beta, bias=bias)

    def dropout(self, x: Node, rate: float, *, name: str | None = None) -> Node:
        """Dropout in training."""
        return self._add(ops.Dropout, (x,), name, rate=rate)

    def quantize(self, x: Node, number: Number, *, scale: float, zero: int, name: str | None = None) -> Node:
        """Real numbers to whole ones on a grid."""
        return self._add(ops.Quantize, (x,), name, number=number, grid=Grid((scale,), (zero,)))

    def dequantize(self, x: Node, *, name: str | None = None) -> Node:
        """Whole numbers on a grid to the real ones they stand for."""
        return self._add(ops.Dequantize, (x,), name)

    def take(self, nodes: Iterable[Node]) -> None:
        """Adds nodes of another network for the same input, by their names there; a head is then built on them."""
        first, *others = nodes
        if first != self.input:
            raise GraphError(f"its input is {first.shape}, not {self.input.shape}")
        for node in others:
            missing = [name for name in node.inputs if name not in self._nodes]
            if missing or node.name in self._nodes:
                reason = f"its input {missing[0]!r} is not there" if missing else "two nodes have this name"
                raise GraphError(f"{node.name}: {reason}")
            self._nodes[node.name] = node

    def graph(
        self, output: Node | Mapping[str, Node], *, features: Node, name: str = "", taps: Sequence[Node] = ()
    ) -> Graph:
        """The finished network. Several outputs are given by name; a single one is called "logits".

        `features` is the last node of the backbone; what follows is the head, which may also read the earlier `taps`.
        """
        results = output if isinstance(output, Mapping) else {LOGITS: output}
        outputs = tuple(Output(called, node.name) for called, node in results.items())
        taps = (*taps, features)
        return Graph(name or self._name, tuple(self._nodes.values()), outputs, tuple(node.name for node in taps))

    def _number(self, kind: str) -> str:
        heads = {name.partition(".")[0] for name in self._nodes}
        return next(name for i in range(len(heads) + 1) if (name := f"{kind}{i + 1}") not in heads)

    def _add(
        self,
        op: type[Op],
        inputs: Sequence[Node],
        name: str | None,
        *,
        window: tuple[Size, Size, PaddingLike] | tuple[Size, Size, PaddingLike, Size] | None = None,
        **attributes: object,
    ) -> Node:
        name = name or self._number(op.kind)
        if foreign := [x.name for x in inputs if self._nodes.get(x.name) is not x]:
            raise GraphError(f"{name}: its input {foreign[0]!r} was not made by this builder")
        if name in self._nodes:
            raise GraphError(f"{name}: two nodes have this name")
        try:
            if window:
                attributes |= _window(inputs[0].shape, *window)
            made = op(**attributes)
        except GraphError as error:
            raise GraphError(f"{name}: {error}") from None
        node = make_node(name, made, inputs)
        self._nodes[name] = node
        return node


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """TensorFlow's SAME along one axis: ceil(size / stride) outputs, the odd pixel of padding at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def ceil_padding(size: int, kernel: int, stride: int) -> Pair:
    """Caffe's rounding up along one axis: pads the last, partial window at the end."""
    return 0, -(size - kernel) % stride


def _symmetric_padding(size: int, kernel: int, stride: int) -> Pair:  # noqa: ARG001
    """(kernel - 1) / 2 on both sides."""
    return (kernel - 1) // 2, (kernel - 1) // 2


_PADDINGS = {"same": same_padding, "symmetric": _symmetric_padding, "ceil": ceil_padding}


def _window(
    shape: Shape, kernel: Size, stride: Size, padding: PaddingLike, dilation: Size | None = None
) -> dict[str, object]:
    """Explicit kernel, stride and padding for an input of this shape, and the dilation if there is one."""
    height, width, _ = checks.as_map(shape)
    kernel, stride, step = _pair(kernel), _pair(stride), _pair(1 if dilation is None else dilation)
    checks.window(kernel, stride, ops.NO_PADDING, step)
    if isinstance(padding, str):
        if padding not in _PADDINGS:
            allowed = ", ".join(map(repr, _PADDINGS))
            raise GraphError(f"padding must be {allowed}, a number or ((top, bottom), (left, right)), not {padding!r}")
        along = _PADDINGS[padding]
        high, wide = ((size - 1) * apart + 1 for size, apart in zip(kernel, step, strict=True))
        padding = (along(height, high, stride[0]), along(width, wide, stride[1]))
    elif isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    found: dict[str, object] = {"kernel": kernel, "stride": stride, "padding": padding}
    return found if dilation is None else found | {"dilation": step}


def _pair(size: Size) -> Pair:
    return (size, size) if isinstance(size, int) else size
