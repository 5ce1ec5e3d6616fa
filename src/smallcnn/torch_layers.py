"""The torch layer of each operator.

All tensors are real numbers: what the graph stores as whole numbers on a grid is here the real number it stands for.
`Quantize` rounds to the grid, and its gradient is 1 inside the grid's range and 0 outside (the straight-through
estimator: Bengio et al. 2013, arXiv 1308.3432).
"""

import numpy as np

from smallcnn.errors import MissingExtra
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader
from smallcnn.ir.types import RANGES
from smallcnn.reference.detection import detect

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra("a torch module", "train") from error


def layer(graph: Graph, node: Node) -> nn.Module:
    """The submodule of a node."""
    channels = graph.input_shapes(node)[0][-1]
    match node.op:
        case ops.Conv() as op:
            return Conv2d(op, channels)
        case ops.Dense() as op:
            return nn.Linear(channels, op.out, bias=op.bias)
        case ops.BatchNorm() as op:
            norm = _BatchNorm2d if len(node.shape) == 3 else _BatchNorm1d
            return norm(channels, eps=op.epsilon)
        case ops.Activation() as op:
            return _activation(op, _may_overwrite(graph, node))
        case ops.PRelu():
            return _PRelu(channels)
        case ops.Resize() as op:
            return _Resize(op)
        case ops.Clip() as op:
            return nn.Hardtanh(op.low, op.high, _may_overwrite(graph, node))
        case ops.Pad() as op:
            (top, bottom), (left, right) = op.padding
            return nn.ZeroPad2d((left, right, top, bottom))
        case ops.Pool() as op:
            return _Pool(op)
        case ops.LocalResponseNorm() as op:
            return nn.LocalResponseNorm(op.size, op.alpha, op.beta, op.bias)
        case ops.Dropout() as op:
            return nn.Dropout(op.rate)
        case ops.Shuffle() as op:
            return nn.ChannelShuffle(op.groups)
        case ops.Slice() as op:
            return _Slice(op)
        case ops.Rows() as op:
            return _Rows(op)
        case ops.Detect() as op:
            return Detect(op)
        case ops.Concat():
            return _Concat(-1 if len(node.shape) == 2 else 1)
        case ops.Quantize() as op:
            return _Quantize(op)
        case op if type(op) in _PLAIN:
            return _PLAIN[type(op)]()
        case op:
            raise NotImplementedError(f"no torch layer for {op.kind}")


def _may_overwrite(graph: Graph, node: Node) -> bool:
    """Whether `node` may write over its input: a new tensor that no other node reads and no caller holds."""
    source = graph[node.inputs[0]]
    fresh = isinstance(source.op, ops.Conv | ops.Dense | ops.BatchNorm | ops.Add | ops.Sub)
    return fresh and source.name not in graph.taps and only_reader(graph, source) is not None


def _activation(op: ops.Activation, inplace: bool) -> nn.Module:
    match op.function:
        case "relu":
            return nn.ReLU(inplace)
        case "relu6":
            return nn.ReLU6(inplace)
        case "leaky_relu":
            return nn.LeakyReLU(op.slope, inplace)
        case "hard_swish":
            return nn.Hardswish(inplace)
        case "hard_sigmoid":
            return nn.Hardsigmoid(inplace)
        case "sigmoid":
            return nn.Sigmoid()


def _split_padding(padding: ops.Padding) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """(symmetric padding that the layer can do, padding to add before it in F.pad's order)."""
    (top, bottom), (left, right) = padding
    if top == bottom and left == right:
        return (top, left), None
    return (0, 0), (left, right, top, bottom)


class Conv2d(nn.Conv2d):
    """A convolution with the graph's padding, which may differ from side to side."""

    def __init__(self, op: ops.Conv, channels: int) -> None:
        symmetric, self.before = _split_padding(op.padding)
        super().__init__(channels, op.out, op.kernel, op.stride, symmetric, op.dilation, groups=op.groups, bias=op.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H', W')."""
        return super().forward(x if self.before is None else F.pad(x, self.before))


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm without the unused batch counter, so the state dict is exactly the graph's weights."""

    _load_from_state_dict = nn.Module._load_from_state_dict  # the original puts the counter back

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        self.num_batches_tracked = None


class _BatchNorm1d(nn.BatchNorm1d):
    _load_from_state_dict = nn.Module._load_from_state_dict

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        self.num_batches_tracked = None


class _Pool(nn.Module):
    def __init__(self, op: ops.Pool) -> None:
        super().__init__()
        self.op = op
        self.symmetric, self.before = _split_padding(op.padding)
        if any(2 * pad > size for pad, size in zip(self.symmetric, op.kernel, strict=True)):
            (top, bottom), (left, right) = op.padding  # torch's own padding stops at half the window
            self.symmetric, self.before = (0, 0), (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        op = self.op
        if op.function == "max":
            x = x if self.before is None else F.pad(x, self.before, value=-torch.inf)
            return F.max_pool2d(x, op.kernel, op.stride, self.symmetric)
        if self.before is None:
            return F.avg_pool2d(x, op.kernel, op.stride, self.symmetric, count_include_pad=op.count_padding)
        total = F.avg_pool2d(F.pad(x, self.before), op.kernel, op.stride)
        if op.count_padding:
            return total
        inside = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.before), op.kernel, op.stride)
        return total / inside


class _PRelu(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.ndim == 3  # rows have their channels last
        return F.prelu(x.movedim(-1, 1), self.slope).movedim(1, -1) if last else F.prelu(x, self.slope)


class _Resize(nn.Module):
    def __init__(self, op: ops.Resize) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        made = self._resized(self._resized(x, 2, self.op.height), 3, self.op.width)
        return made.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _resized(self, x: Tensor, axis: int, after: int) -> Tensor:
        """Height (axis 2) or width (axis 3) brought to `after` pixels."""
        low, high, weight = zip(*self.op.taps(x.shape[axis], after), strict=True)
        first = x.index_select(axis, torch.tensor(low, device=x.device))
        if self.op.mode == "nearest":
            return first
        second = x.index_select(axis, torch.tensor(high, device=x.device))
        share = torch.tensor(weight, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (3 - axis))
        return first * (1 - share) + second * share


class _Slice(nn.Module):
    def __init__(self, op: ops.Slice) -> None:
        super().__init__()
        self.start, self.stop = op.start, op.stop

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:  # rows
            return x[..., self.start : self.stop]
        return x[:, self.start : self.stop]


class _Rows(nn.Module):
    def __init__(self, op: ops.Rows) -> None:
        super().__init__()
        self.columns = op.columns

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).reshape(len(x), -1, self.columns)


class Detect(nn.Module):
    """The decisions of a detector, by its definition and so on the CPU, image by image; no gradient passes."""

    def __init__(self, op: ops.Detect) -> None:
        super().__init__()
        self.op = op

    def forward(self, *rows: Tensor) -> Tensor:
        """Code (N, anchors, 4), scores (N, anchors, C) [, objectness (N, anchors, 1)] -> (N, most, 6)."""
        arrays = [x.detach().to("cpu", torch.float32).numpy() for x in rows]
        found = np.stack([detect(self.op, *each) for each in zip(*arrays, strict=True)])
        return torch.from_numpy(found).to(rows[0])


class _Quantize(nn.Module):
    """Real numbers rounded to the grid; the gradient passes as if they were not, except where they saturate."""

    def __init__(self, op: ops.Quantize) -> None:
        super().__init__()
        self.scale, self.zero, (self.low, self.high) = op.grid.scale[0], op.grid.zero[0], RANGES[op.number]

    def forward(self, x: Tensor) -> Tensor:
        least, most = (self.scale * (end - self.zero) for end in (self.low, self.high))
        inside = x.clamp(least, most)
        steps = torch.clamp(torch.round(x.float() / self.scale) + self.zero, self.low, self.high) - self.zero
        return (steps * self.scale).detach() + (inside - inside.detach())  # the second term is 0, exactly


class _GlobalPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class _Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.movedim(1, -1) if x.ndim == 4 else x).flatten(1)  # channels fastest, as in the graph


class _Add(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0] + xs[1]
        for x in xs[2:]:
            total = total + x
        return total


class _Sub(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y


class _Exp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class _Scale(nn.Module):
    def forward(self, x: Tensor, factors: Tensor) -> Tensor:
        return x * factors[:, :, None, None]


class _Concat(nn.Module):
    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, self.dimension)


class _Count(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) > 0).sum(1, keepdim=True).to(x)


_PLAIN: dict[type[ops.Op], type[nn.Module]] = {
    ops.GlobalPool: _GlobalPool,
    ops.Flatten: _Flatten,
    ops.Exp: _Exp,
    ops.Add: _Add,
    ops.Sub: _Sub,
    ops.Scale: _Scale,
    ops.Join: _Concat,
    ops.Count: _Count,
    ops.Dequantize: nn.Identity,
}
