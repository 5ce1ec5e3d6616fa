"""Networks and weights that several tests share."""

import numpy as np

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.types import Grid
from smallcnn.reference.numbers import stored


def every_op() -> Graph:
    """Every operator of real numbers and activation at once, odd planes, one-sided padding, branches; 5 logits."""
    g = Builder(input=(9, 8, 3))
    logits, features = _every_op(g)
    return g.graph(logits, features=features, name="every_op")


def every_number() -> Graph:
    """`every_op`, two weights and a branch on grids, and two outputs: 5 logits, and a map of bytes (3, 5, 8)."""
    g = Builder(input=(9, 8, 3))
    logits, features = _every_op(g)
    q = g.quantize(features, "uint8", scale=0.004, zero=3, name="q.bytes")
    a, b = g.split(g.max_pool(q, kernel=2, stride=1, padding=((0, 0), (1, 0)), name="q.pool"), (4, 2), name="q.split")
    q = g.concat(b, g.shuffle(a, 2, name="q.shuffle"), b, name="q.join")
    codes = g.pad(g.dropout(q, 0.5, name="q.dropout"), ((0, 0), (0, 1)), name="q.pad")
    back = g.dequantize(codes, name="q.back")
    per_output = Grid(tuple(0.01 + 0.001 * i for i in range(6)), (0,) * 6)
    y = g.conv(back, 6, kernel=3, number="int8", grid=per_output, name="q.conv")
    y = g.flatten(g.quantize(y, "int8", scale=0.03, zero=-5, name="q.signed"), name="q.flatten")
    y = g.dense(g.dequantize(y, name="q.real"), 5, number="uint8", grid=Grid((0.002,), (128,)), name="q.dense")
    total = g.add(logits, y, name="q.sum")
    return g.graph({"logits": total, "codes": codes}, features=features, name="every_number")


def _every_op(g: Builder) -> tuple[Node, Node]:
    """The output and the features of `every_op`."""
    x = g.conv_bn(g.input, 8, kernel=3, stride=2, name="stem")
    pooled = g.max_pool(x, kernel=(3, 2), stride=1, name="pool.max")
    mean = g.average_pool(x, kernel=(2, 3), stride=1, name="pool.mean")
    normed = g.local_response_norm(x, size=3, alpha=0.5, beta=0.75, bias=1.0, name="lrn")
    x = g.add(pooled, mean, mean, name="sum.twice")  # one node reads another twice, and the next reads it again
    x = g.add(x, mean, normed, name="sum.all")
    few, many = g.split(x, (2, 6), name="split")
    few = g.depthwise(few, kernel=(1, 3), multiplier=2, name="few.depthwise")
    few = g.activation(few, "leaky_relu", slope=0.2, name="few.act")
    few = g.pad(few, ((-1, 1), (2, -2)), name="few.pad")
    many = g.conv(many, 4, kernel=(3, 1), stride=1, groups=2, bias=False, name="many.conv")
    many = g.activation(many, "hard_swish", name="many.act")
    x = g.shuffle(g.concat(few, many, name="join"), 2, name="shuffle")
    x = g.clip(g.batch_norm(x, epsilon=1e-3, name="bn"), -0.8, 1.5, name="clip")
    y = g.dense(g.global_pool(x, name="se.pool"), 4, name="se.reduce")
    y = g.dense(g.activation(y, "relu", name="se.relu"), 8, name="se.expand")
    x = g.scale(x, g.activation(y, "hard_sigmoid", name="se.gate"), name="se.scale")
    x = g.conv_bn(x, 6, kernel=3, padding=((0, 1), (2, 0)), activation=None, name="last")
    features = g.activation(x, "sigmoid", name="features")
    y = g.dense(g.flatten(features, name="flatten"), 7, bias=False, name="hidden")
    y = g.activation(g.batch_norm(y, name="hidden_bn"), "relu6", name="hidden_act")
    return g.dense(g.dropout(y, 0.5, name="dropout"), 5, name="classifier"), features


def tiny() -> Graph:
    """Two blocks and a classifier with 3 classes; 1,000 bytes of weights rather than megabytes."""
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 4, kernel=3, stride=2, name="stem")
    x = g.depthwise_bn(x, kernel=3, name="block")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="tiny")


def random_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """What training might leave: no value at its initial one, variances above 0, activations that stay near 1."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, weight in graph.weights.items():
        fan_in = np.prod(weight.shape[1:])  # 1 for vectors
        value = rng.standard_normal(weight.shape) / np.sqrt(fan_in)
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 2, weight.shape)
        grid = weight.tensor.grid
        values[name] = stored(weight.tensor.number, grid, value) if grid else value.astype(np.float32)
    return values


def images(graph: Graph, count: int = 2, seed: int = 1) -> np.ndarray:
    """Prepared images, float32 (N, H, W, C)."""
    return np.random.default_rng(seed).standard_normal((count, *graph.input_shape), np.float32)
