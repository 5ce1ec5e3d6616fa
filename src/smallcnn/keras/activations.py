"""Keras activations, as layers or as a setting of other layers."""

from dataclasses import replace
from math import inf
from typing import Any

from smallcnn.errors import FileError
from smallcnn.foreign import arithmetic, idioms
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir.checks import shown
from smallcnn.keras.call import Call, Reader


def activated(net: Network, call: Call, view: View) -> View:
    """The result with the layer's activation applied."""
    return _activation(net, call, view, call.layer.config.get("activation"), f"{call.label}.activation")


def activation(net: Network, call: Call) -> View:
    """Activation."""
    return _activation(net, call, call.view(), call.layer.config.get("activation"), call.label)


def _activation(net: Network, call: Call, view: View, said: Any, label: str) -> View:
    """An activation by its name, or a layer in its place."""
    if isinstance(said, dict):
        inner = said.get("config")
        if said.get("class_name") in _LAYERS and isinstance(inner, dict):
            layer = replace(call.layer, kind=str(said["class_name"]), config=inner)
            return _LAYERS[layer.kind](net, replace(call, layer=layer, arguments=[view], named={}, label=label))
        said = inner if isinstance(inner, str) else said.get("class_name")
    match said:
        case None | "linear":
            return view
        case "relu" | "sigmoid":
            return net.activation(view, said, label)
        case "relu6":
            return idioms.clip(net, view, 0, 6, label)
        case "hard_sigmoid":
            slope = 1 / 6 if call.version >= 3 else 0.2
            return idioms.hard_sigmoid(net, view, slope, 0.5, label)
        case "hard_swish" | "hard_silu":
            return net.activation(view, "hard_swish", label)
        case "leaky_relu":
            return net.activation(view, "leaky_relu", label, slope=0.2)
        case "softmax" | "log_softmax":
            return _softmax(view, said)
    raise FileError(f"has the activation {shown(said)}, which the graph does not have")


def _softmax(view: View, kind: str) -> View:
    if any(view.dims[:-1]):
        raise FileError(f"is a softmax over the last axis of {shown(view.sizes)}, which is not all classes")
    return replace(view, ended=kind)


def named_activation(name: str) -> Reader:
    """A layer or operation that is an activation without settings."""
    return lambda net, call: _activation(net, call, call.view(), name, call.label)


def softmax(net: Network, call: Call) -> View:  # noqa: ARG001
    """Softmax."""
    view, axis = call.view(), call.option("axis", default=-1)
    if axis not in (-1, len(view.dims) - 1):
        raise FileError(f"is over axis {shown(axis)} of {shown(view.sizes)}, which is not all classes")
    return _softmax(view, "softmax")


def relu(net: Network, call: Call) -> View:
    """ReLU, with an upper end and a slope below 0."""
    view, most = call.view(), call.option("max_value")
    slope, threshold = call.real("negative_slope", default=0), call.real("threshold", default=0)
    if threshold != 0:
        raise FileError(f"is a ReLU with the threshold {threshold:g}; only 0 is known")
    if slope == 0:
        return idioms.clip(net, view, 0, inf if most is None else call.real("max_value", default=0), call.label)
    if most is not None:
        raise FileError("is a ReLU with both a slope and an upper bound, which the graph does not have")
    return net.activation(view, "leaky_relu", call.label, slope=slope)


def leaky_relu(net: Network, call: Call) -> View:
    """LeakyReLU."""
    return idioms.leaky_relu(net, call.view(), call.real("negative_slope", "alpha", default=0.3), call.label)


def prelu(net: Network, call: Call) -> View:
    """PReLU, whose slopes may be shared along the plane or the channels."""
    return arithmetic.prelu(net, call.view(), call.tensors("alpha")["alpha"], call.label)


_LAYERS: dict[str, Reader] = {"LeakyReLU": leaky_relu, "PReLU": prelu, "ReLU": relu, "Softmax": softmax}
"""Layers that may stand where an activation is a setting."""
