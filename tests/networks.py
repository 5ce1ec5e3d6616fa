"""Networks and weights that several tests share."""

from dataclasses import replace
from typing import Any

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node, Output
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
    y = g.flatten(g.quantize(y, "int8", scale=0.031, zero=-5, name="q.signed"), name="q.flatten")
    y = g.dense(g.dequantize(y, name="q.real"), 5, number="uint8", grid=Grid((0.002,), (128,)), name="q.dense")
    total = g.add(logits, y, name="q.sum")
    return g.graph({"logits": total, "codes": codes}, features=features, name="every_number")


def every_integer() -> Graph:
    """Every operator that computes with bytes; logits, and a map of bytes (5, 4, 8)."""
    g = Builder(input=(9, 8, 3))

    def conv(
        x: Node, out: int, name: str, *, scale: float = 0.05, zero: int = 0, bias: bool = True, **how: Any
    ) -> Node:
        grid = Grid(tuple(0.008 + 0.001 * (i % 5) for i in range(out)), (0,) * out)
        return g.quantize(
            g.conv(x, out, number="int8", grid=grid, bias=bias, name=f"{name}.conv", **how), "uint8", scale=scale,
            zero=zero, name=f"{name}.bytes",
        )  # fmt: skip

    image = g.quantize(g.input, "uint8", scale=0.02, zero=121, name="bytes")
    x = conv(image, 8, "stem", kernel=3, stride=2)
    x = conv(x, 8, "depthwise", kernel=3, groups=8, scale=0.02, zero=127)
    y = conv(g.activation(x, "relu6", name="bounded"), 16, "expand", bias=False)
    y = conv(y, 16, "tall", kernel=(5, 2), groups=16, scale=0.04)
    y = conv(y, 8, "project", scale=0.03, zero=101)
    x = g.quantize(g.add(x, y, y, name="total"), "uint8", scale=0.05, zero=120, name="summed")
    y = g.quantize(g.activation(x, "hard_swish", name="curved"), "uint8", scale=0.045, zero=9, name="bent")
    z = g.quantize(g.average_pool(x, kernel=3, stride=1, name="mean"), "uint8", scale=0.045, zero=9, name="means")
    y = g.concat(y, g.max_pool(z, kernel=3, stride=1, name="most"), name="join")
    y = conv(g.shuffle(y, 4, name="shuffle"), 8, "grouped", groups=4, kernel=(1, 3), zero=33)
    few, many = g.split(y, (2, 6), name="split")
    y = g.clip(g.concat(many, few, name="again"), -1.0, 2.0, name="clip")
    gate = g.quantize(g.global_pool(y, name="pool"), "uint8", scale=0.04, zero=40, name="pooled")
    dense = Grid((0.01,), (131,))
    gate = g.quantize(
        g.dense(gate, 8, number="uint8", grid=dense, name="gate"), "uint8", scale=0.05, zero=125, name="gating"
    )
    gate = g.quantize(g.activation(gate, "hard_sigmoid", name="opening"), "uint8", scale=1 / 255, zero=0, name="gates")
    y = g.quantize(g.scale(y, gate, name="scaled"), "uint8", scale=0.03, zero=30, name="features")
    per_output = Grid((0.011, 0.012, 0.013), (0, 0, 0))
    flat = g.flatten(g.pad(y, ((0, -1), (1, 0)), name="pad"), name="flatten")
    logits = g.dequantize(g.dense(flat, 3, number="int8", grid=per_output, name="classifier"), name="logits")
    return g.graph({"logits": logits, "codes": y}, features=y, name="every_integer")


def detector(count: int = 20, **how: Any) -> Graph:
    """A detector of two maps and 27 anchors, and `how` its `Detect` differs from SSD's; the four outputs.

    Scores spread from near 0 to near 1, and boxes overlap, so that thresholds decide something.
    """
    g = Builder(input=(16, 24, 3), name="detector")
    x = g.conv_bn(g.input, 8, kernel=3, stride=4, name="body")
    small = g.conv_bn(x, 8, kernel=3, stride=2, name="extra")
    grids = (
        ops.AnchorGrid(cells=(4, 6), sizes=((0.3, 0.2),), step=(1 / 4, 1 / 6)),
        ops.AnchorGrid(cells=(2, 3), sizes=((0.3, 0.6), (0.7, 0.7)), step=(1 / 2, 1 / 3), offset=0.4),
    )
    settings = {
        "score": "sigmoid", "background": False, "centre": "linear", "size": "exp", "centre_scale": 0.1,
        "size_scale": 0.2, "y_first": True, "clip": False, "across": False, "threshold": 0.5, "overlap": 0.5,
    } | how  # fmt: skip
    objectness = settings.pop("objectness", False)
    detect = ops.Detect(anchors=grids, most=count, **settings)
    codes, scores, own = [], [], []
    for source, anchors, name in ((x, 1, "first"), (small, 2, "second")):
        codes.append(g.rows(g.conv(source, 4 * anchors, name=f"{name}.code"), 4, name=f"{name}.codes"))
        both = g.conv(source, 4 * anchors, kernel=3, name=f"{name}.score")
        scores.append(g.rows(both, 4, name=f"{name}.scores"))
        if objectness:
            one = g.activation(g.conv(source, anchors, name=f"{name}.object"), "sigmoid", name=f"{name}.sure")
            own.append(g.rows(one, 1, name=f"{name}.sures"))
    outputs = g.detections(
        detect, g.join(*codes, name="codes"), g.join(*scores, name="scores"),
        g.join(*own, name="sures") if own else None,
    )  # fmt: skip
    return g.graph(outputs, features=small, taps=[x])


def dilated() -> Graph:
    """Convolutions that read pixels apart from each other, one of them depthwise."""
    g = Builder(input=(13, 12, 3), name="dilated")
    x = g.conv(g.input, 6, kernel=3, dilation=2, padding=2, name="apart")
    x = g.depthwise_bn(g.activation(x, "relu"), kernel=3, name="body")
    x = g.conv(x, 6, kernel=(3, 5), dilation=(2, 3), groups=6, name="each")
    y = g.conv(x, 8, kernel=(3, 2), stride=(1, 2), dilation=(4, 3), padding=((4, 3), (1, 2)), groups=2, name="uneven")
    return g.graph(g.dense(g.global_pool(y), 5), features=y)


def resized() -> Graph:
    """Maps of other sizes, slopes per channel, exp and differences; 5 logits.

    Sides are doubled, halved, and brought to sizes that no float32 gives as a factor.
    """
    g = Builder(input=(9, 8, 3), name="resized")
    x = g.prelu(g.conv(g.input, 6, kernel=3, stride=2, name="stem"), name="stem_act")  # 5x4
    doubled = g.exp(g.resize(x, 10, 8, mode="nearest", coordinates="asymmetric", name="doubled"), name="exp")
    uneven = g.resize(x, 7, 9, mode="nearest", rounding="round_prefer_ceil", name="uneven")
    smooth = g.resize(uneven, 10, 8, mode="bilinear", name="smooth")
    corners = g.resize(x, 10, 8, mode="bilinear", coordinates="align_corners", name="corners")
    y = g.sub(g.concat(doubled, smooth, name="join"), g.concat(corners, doubled, name="other"), name="difference")
    y = g.depthwise(y, kernel=3, name="apart")
    y = g.resize(y, 5, 4, mode="nearest", coordinates="asymmetric", rounding="ceil", name="halved")
    rows = g.prelu(g.rows(y, 4, name="rows"), name="rows_act")
    z = g.prelu(g.dense(g.flatten(rows, name="flat"), 7, name="hidden"), name="hidden_act")
    beside = g.exp(g.dense(g.global_pool(y, name="pool"), 7, name="beside"), name="beside_exp")
    z = g.sub(z, beside, name="less")
    return g.graph(g.dense(z, 5, name="classifier"), features=y, taps=[x])


def resized_bytes() -> Graph:
    """The operators of `resized` that compute with bytes or move them; logits, and a map of bytes (6, 6, 4)."""
    g = Builder(input=(6, 5, 3), name="resized_bytes")
    grid = Grid(tuple(0.008 + 0.001 * i for i in range(4)), (0,) * 4)
    x = g.conv(
        g.quantize(g.input, "uint8", scale=0.02, zero=121, name="bytes"), 4, number="int8", grid=grid, name="stem"
    )
    x = g.quantize(x, "uint8", scale=0.02, zero=100, name="stored")
    y = g.quantize(g.prelu(x, name="slopes"), "uint8", scale=0.013, zero=77, name="bent")
    doubled = g.resize(y, 12, 10, mode="nearest", coordinates="asymmetric", name="doubled")
    z = g.max_pool(doubled, kernel=2, stride=2, name="most")
    z = g.quantize(g.sub(x, z, name="difference"), "uint8", scale=0.017, zero=123, name="apart")
    codes = g.resize(z, 6, 6, mode="nearest", rounding="round_prefer_floor", name="uneven")
    three = Grid((0.011, 0.012, 0.013), (0, 0, 0))
    logits = g.dequantize(g.dense(g.flatten(codes), 3, number="int8", grid=three, name="classifier"), name="logits")
    return g.graph({"logits": logits, "codes": codes}, features=codes)


def every_row() -> Graph:
    """Operators on rows that are not a detector's end: rows (36, 5) and a vector (90,)."""
    g = Builder(input=(9, 8, 3))
    x = g.conv(g.input, 6, kernel=3, stride=2, name="stem")
    y = g.conv(x, 4, kernel=3, stride=2, name="small")
    rows = g.join(g.rows(x, 2, name="x.rows"), g.rows(y, 2, name="y.rows"), name="pairs")
    bent = g.activation(rows, "hard_swish", name="bent")
    few, many = g.split(g.concat(bent, rows, bent, name="beside"), (1, 5), name="split")
    return g.graph({"rows": many, "flat": g.flatten(few, name="flat")}, features=y, taps=[x], name="every_row")


def every_result(graph: Graph) -> Graph:
    """The same network with every result of bytes as an output, so that each layer can be compared."""
    results = tuple(Output(f"of.{node.name}", node.name) for node in graph if node.tensor.number == "uint8")
    return replace(graph, outputs=(*graph.outputs, *results))


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
