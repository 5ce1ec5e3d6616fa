"""Keras layers of arithmetic: normalisation, scaling, sums, products; and joins."""

from dataclasses import replace

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import arithmetic, idioms, views
from smallcnn.foreign.arithmetic import per_channel
from smallcnn.foreign.idioms import EPSILON
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.keras.call import Call
from smallcnn.keras.tensors import tensor_names


def batch_norm(net: Network, call: Call) -> View:
    """BatchNormalization over the channels."""
    view = net.ordered(call.view())
    axis = call.option("axis", default=-1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(view.dims) - 1) or call.option("mode", default=0) not in (0, 2):
        raise FileError(f"normalises axis {shown(axis)} of {shown(view.sizes)}, which is not the channels")
    own = call.tensors(*tensor_names(call.layer))
    channels = view.node.shape[-1]
    if {atom.axis for atom in view.dims[-1]} - {views.CHANNELS} or view.sizes[-1] != channels:
        raise FileError(f"normalises {shown(view.sizes)}, whose last axis is not the channels")
    epsilon = call.real("epsilon", default=1e-3) or EPSILON
    if not (own["moving_variance"] + epsilon > EPSILON).all():
        raise FileError("has a variance that is not above 0")
    made = net.add(
        ops.BatchNorm(epsilon=epsilon), [view.node], call.label,
        weight=own.get("gamma", np.ones(channels, np.float32)), bias=own.get("beta", np.zeros(channels, np.float32)),
        running_mean=own["moving_mean"], running_var=own["moving_variance"],
    )  # fmt: skip
    return replace(view, node=made)


def rescaling(net: Network, call: Call) -> View:
    """Rescaling: x * scale + offset."""
    view, scale = per_channel(net, call.view(), np.asarray(call.option("scale", default=1.0), np.float64))
    view, offset = per_channel(net, view, np.asarray(call.option("offset", default=0.0), np.float64))
    return idioms.scale_and_shift(net, view, scale, offset, call.label)


def normalization(net: Network, call: Call) -> View:
    """Normalization: (x - mean) / sqrt(variance), or its inverse."""
    config = call.layer.config
    if config.get("mean") is None:
        own = call.tensors(*tensor_names(call.layer))
        mean, variance = own["mean"], own["variance"]
    else:
        mean, variance = (np.asarray(config.get(key), np.float64) for key in ("mean", "variance"))
    view, mean = per_channel(net, call.view(), mean)
    view, variance = per_channel(net, view, variance)
    std = np.maximum(np.sqrt(variance), 1e-7)  # Keras' epsilon
    if call.flag("invert", default=False):
        return idioms.scale_and_shift(net, view, std, mean, call.label)
    return idioms.scale_and_shift(net, view, 1 / std, -mean / std, call.label)


def add(net: Network, call: Call) -> View:
    """Add, of results, or of a result and a constant."""
    results = call.views()
    return net.sum(results, call.label) if len(results) > 1 else arithmetic.plus(net, *_pair(call), call.label)


def multiply(net: Network, call: Call) -> View:
    """Multiply: a map by a number per channel, x by hard_sigmoid(x), or a result by a constant."""
    if len(call.views()) > 2:
        raise FileError(f"multiplies {len(call.views())} results; the graph can multiply two")
    return arithmetic.times(net, *_pair(call), call.label)


def subtract(net: Network, call: Call) -> View:
    """Subtract, of two results, or of a result and a constant."""
    return arithmetic.minus(net, *_pair(call), call.label)


def divide(net: Network, call: Call) -> View:
    """A result divided by a constant."""
    return arithmetic.over(net, *_pair(call), call.label)


def _pair(call: Call) -> tuple[arithmetic.Operand, arithmetic.Operand]:
    return call.pair("x", "y", "x1", "x2")


def average(net: Network, call: Call) -> View:
    """Average, of results."""
    results = call.views()
    total = net.sum(results, call.label)
    return idioms.scale_and_shift(net, total, np.array(1 / len(results)), np.array(0.0), f"{call.label}.scale")


def concatenate(net: Network, call: Call) -> View:
    """Concatenate, along the channels."""
    parts = call.views()
    axis = call.option("axis", "concat_axis", default=-1)
    if not parts or len({len(part.dims) for part in parts}) > 1 or axis not in (-1, len(parts[0].dims) - 1):
        raise FileError(f"joins {len(parts)} results along axis {shown(axis)}; channels can be joined")
    return parts[0] if len(parts) == 1 else net.join(parts, len(parts[0].dims) - 1, call.label)
