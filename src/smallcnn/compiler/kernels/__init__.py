"""The kernels: each is an algorithm and, separately, a schedule.

pipeline(spec, machine)    the Halide pipeline of a specification, and its operands
"""

from typing import Any

from smallcnn.compiler import specs
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.kernels import chain, conv, depthwise, lanes, matmul, pool, resize, winograd
from smallcnn.compiler.specs import Spec

KERNELS: dict[type, Any] = {
    specs.Pointwise: matmul.pointwise,
    specs.Conv: conv.conv,
    specs.Winograd: winograd.winograd,
    specs.Depthwise: depthwise.depthwise,
    specs.Separable: depthwise.separable,
    specs.Chain: chain.chain,
    specs.Pool: pool.pool,
    specs.GlobalPool: pool.global_pool,
    specs.Pad: lanes.pad,
    specs.Resize: resize.resize,
    specs.Lanes: lanes.elementwise,
    specs.Gather: lanes.gather,
    specs.Image: lanes.image,
    specs.Response: lanes.response,
}


def pipeline(spec: Spec, machine: Machine) -> tuple[Any, list[Any]]:
    """The pipeline that computes `spec`, and its inputs in order."""
    result: tuple[Any, list[Any]] = KERNELS[type(spec)](spec, machine)
    return result
