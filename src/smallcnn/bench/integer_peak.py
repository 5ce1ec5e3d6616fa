"""Peak Mult-Adds per second of bytes: the register tile of a matrix product, its data in the first-level cache.

    sum[c, p] = over k of source[k, p] * weight[c, k]        int32 sums; again and again, each time a row of the result

Computed as the level computes it: dot products of four bytes, or products of bytes widened to 16 bits.
"""

import numpy as np

from smallcnn.compiler.build import object_file
from smallcnn.compiler.program import Buffer, Program, Step
from smallcnn.compiler.targets import Target
from smallcnn.ir.types import Number, Tensor

KERNEL = "integer_peak"
_VECTORS, _DEPTH, _AGAIN = 2, 128, 240
"""Vectors of weights in a tile, dot products in a sum: 16 KiB of weights at most; and how often a tile is computed."""


def pixels(target: Target) -> int:
    """Pixels of a tile: registers are left for its weights, a pixel and a product."""
    return (target.registers - 4) // _VECTORS


def mult_adds(target: Target) -> int:
    """Mult-Adds of one run."""
    return pixels(target) * _VECTORS * target.vector * target.machine.dot * _DEPTH * _AGAIN


def program(target: Target) -> Program:
    """A program of one step, which threads share."""
    dot, tile, lanes = target.machine.dot, pixels(target), _VECTORS * target.vector
    random = np.random.default_rng(0)
    signed = _source(target) == "int8"
    source = random.integers(-128 if signed else 0, 128 if signed else 256, (tile, _DEPTH, dot))
    weight = random.integers(-127, 128, (_VECTORS, _DEPTH, target.vector, dot))
    weights, buffers = b"", []
    for number, values in ((_source(target), source), ("int8", weight)):
        extents = values.shape[::-1]
        strides = tuple(int(np.prod(extents[:i])) for i in range(len(extents)))
        buffers.append(Buffer("weights", len(weights), number, extents, strides))
        weights += values.astype(number).tobytes()
        weights += bytes(-len(weights) % 64)
    output = Buffer("arena", 0, "int32", (lanes, tile, _AGAIN), (1, lanes, lanes * tile))
    return Program(
        name=KERNEL,
        target=target.name,
        features=target.features,
        objects=(_kernel(target),),
        steps=(Step(KERNEL, (*buffers, output), split=2, grain=1, label=KERNEL),),
        arena_bytes=output.end,
        scratch_bytes=2 * (source.size + weight.size) + 4096,
        weights=weights + bytes(256),
        metadata={},
        input_shape=(1, 1, 1),
        outputs={"unused": Tensor((1,))},
    )


def _source(target: Target) -> Number:
    """Numbers that the level multiplies by int8: x86's dot products take unsigned ones, ARM's signed."""
    return "int8" if target.machine.dot > 2 and not target.machine.dots else "uint8"


def _kernel(target: Target) -> bytes:
    """The kernel's object file. Operands: source (dot, depth, pixels), weight (dot, lane, depth, vectors), output."""
    import halide as hl

    machine, tile, lanes = target.machine, pixels(target), _VECTORS * target.vector
    dot, vector = machine.dot, machine.vector
    source = hl.ImageParam(hl.Int(8) if _source(target) == "int8" else hl.UInt(8), 3, "source")
    weight = hl.ImageParam(hl.Int(8), 4, "weight")
    for param, extents in ((source, (dot, _DEPTH, tile)), (weight, (dot, vector, _DEPTH, _VECTORS))):
        stride = 1
        for i, extent in enumerate(extents):
            param.dim(i).set_bounds(0, extent).set_stride(stride)
            stride *= extent
    c, p, again, j, k = (hl.Var(name) for name in ("c", "p", "again", "j", "k"))
    r = hl.RDom([(0, dot), (0, _DEPTH)], "r")
    sums, out, read, by = (hl.Func(name) for name in ("sums", "out", "read", "by"))
    read[j, k, p] = source[j, k, p] if dot > 2 else hl.i16(source[j, k, p])
    by[j, c, k, p] = weight[j, c, k, p] if dot > 2 else hl.i16(weight[j, c, k, p])
    sums[c, p] = 0
    sums[c, p] += hl.i32(read[r[0], r[1], p]) * hl.i32(by[r[0], c % vector, r[1], c / vector])
    out[c, p, again] = sums[c, p]
    several, one = hl.Var("several"), hl.Var("one")
    out.bound(c, 0, lanes).bound(p, 0, tile).vectorize(c, vector).unroll(c).unroll(p)
    if dot <= 2:
        read.compute_root()
        by.compute_root()
    sums.compute_at(out, again).vectorize(c, vector).unroll(c).unroll(p)
    update = sums.update().split(c, several, one, vector, hl.TailStrategy.RoundUp)
    update.reorder(r[0], one, several, p, r[1])
    update.atomic().vectorize(r[0], dot).vectorize(one, vector).unroll(several).unroll(p)
    out.output_buffer().dim(0).set_bounds(0, lanes)
    out.output_buffer().dim(1).set_bounds(0, tile).set_stride(lanes)
    out.output_buffer().dim(2).set_stride(lanes * tile)
    return object_file(hl.Pipeline([out]), [source, weight], KERNEL, machine)
