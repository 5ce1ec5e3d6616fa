"""Kernels of rows and of a detector's end, which are written in C: the specification and the operands of a layer.

They read maps of other layers as they are; nothing is copied between a detector's heads and its end.
"""

import numpy as np

from smallcnn.compiler import specs
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.operands import Constant, Map, Operand, flat
from smallcnn.compiler.specs import Spec
from smallcnn.compiler.storage import View
from smallcnn.ir import ops
from smallcnn.reference.detection import anchors


def kernel(layer: Layer) -> tuple[Spec, tuple[Operand, ...]]:
    """Specification and operands."""
    pieces = [_whole(view) for view in layer.inputs]
    match layer.op:
        case ops.Detect() as op:
            coded, scores, *objectness = layer.rows
            own = objectness[0] if objectness else None
            spec = specs.Detect(coded, scores, own, op.anchor_count, op.most, settings(op))
            return spec, (*pieces, Constant.of(anchors(op)), _whole(layer.output, layer.output.storage.lanes))
        case ops.Count():
            return specs.Count(), (*pieces, Map(layer.output.storage, layer.output.slots[0], (1,), (1,)))
        case _:
            return specs.Join(*layer.rows), (*pieces, _whole(layer.output))


def _whole(view: View, lanes: int = 0) -> Map:
    """The channels of a map, or so many lanes, at all pixels."""
    storage = view.storage
    return Map(storage, view.slots[0], (lanes or view.channels, storage.pixels), flat(storage.pitch))


def settings(op: ops.Detect) -> tuple[tuple[str, str], ...]:
    """The constants of native/detect.c; real numbers exactly, as C writes them in hexadecimal."""
    small = {"CENTRE_SCALE": op.centre_scale, "SIZE_SCALE": op.size_scale, "EXP_LIMIT": op.EXP_LIMIT,
             "THRESHOLD": op.threshold, "OVERLAP": op.overlap}  # fmt: skip
    values: dict[str, object] = {name: f"{float(np.float32(value)).hex()}f" for name, value in small.items()}
    values |= {"OBJECTNESS_POWER": float(op.objectness_power).hex()}
    values |= {"SCORE": op.score.upper(), "CENTRE": op.centre.upper(), "SIZE": op.size.upper()}
    flags = {"BACKGROUND": op.background, "Y_FIRST": op.y_first, "CLIP": op.clip, "ACROSS": op.across}
    values |= {name: int(flag) for name, flag in flags.items()}
    return tuple((name, str(value)) for name, value in values.items())
