"""Operators that only move data: transpose, merge, cut and join axes. Mostly bookkeeping (`views`)."""

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View, along
from smallcnn.ir.checks import shown
from smallcnn.onnx.read.call import Call, Value
from smallcnn.onnx.read.codes import Coded
from smallcnn.onnx.read.constants import slices, target_shape
from smallcnn.onnx.read.values import number_type

_MOST_COPIES = 16  # of a channel


def concat(net: Network, call: Call) -> View:
    """Concat, along the channels."""
    if any(not isinstance(value, View) for value in call.values):
        raise FileError("joins a result with a constant")
    parts = [call.any_view(i) for i in range(len(call.values))]
    if len({(len(part.dims), part.pixels) for part in parts}) > 1:
        raise FileError("joins results of different numbers of axes, or floats and bytes")
    if ended := next((part.ended for part in parts if part.ended), None):
        raise FileError(f"reads the result of {ended}, which is supported only as the last operator")
    axis = along(call.attributes.whole("axis", 1 if call.opset < 4 else None), len(parts[0].dims))
    joined = parts[0] if len(parts) == 1 else net.join(parts, axis, call.label)
    return replace(joined, pixels=parts[0].pixels)


def split(net: Network, call: Call) -> list[View]:
    """Split, into consecutive parts."""
    view = call.any_view()
    axis = along(call.attributes.whole("axis", 0), len(view.dims))
    sizes = call.constant(1)
    sizes = call.attributes.ints("split") if sizes is None else sizes
    if sizes is None:
        parts = call.attributes.whole("num_outputs", call.outputs)
        each = -(-view.sizes[axis] // max(parts, 1))
        sizes = [each] * (parts - 1) + [view.sizes[axis] - each * (parts - 1)] if parts <= call.outputs else []
    if len(sizes) != call.outputs:
        raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {shown(sizes)}")
    return net.parts(view, axis, sizes, call.label)


def cut(net: Network, call: Call) -> View:
    """Slice: consecutive rows or columns; channels in any steps, also backwards."""
    view = _before_the_end(call)
    if any(isinstance(value, View) for value in call.values[1:]):
        raise FileError("slices at a position that depends on the image")
    for axis, part in slices(call, len(view.dims)).items():
        taken = range(view.sizes[axis])[part]
        if not taken:
            raise FileError(f"takes {shown(taken)} of axis {axis}, which is empty")
        if taken.step == 1 or len(taken) == 1:
            view = net.part(view, axis, taken[0], taken[-1] + 1, call.label)
        else:
            view = net.pick(view, axis, np.array(taken), call.label)
    return view


def gather(net: Network, call: Call) -> View:
    """Gather by constant indices: consecutive rows or columns, channels in any order, or a single one."""
    return _gathered(net, call, call.attributes.whole("axis", 0), call.get(1))


def gather_nd(net: Network, call: Call) -> View:
    """GatherND along the first axis, used by PyTorch's newer exporter for x[:, [2, 1, 0]]."""
    index = call.get(1)
    if call.attributes.whole("batch_dims", 0) or index is None or index.ndim != 2 or index.shape[1] != 1:
        raise FileError("gathers with something other than a list of indices of one axis")
    return _gathered(net, call, 0, index[:, 0])


def _gathered(net: Network, call: Call, axis: int, index: Array | None) -> View:
    view = _before_the_end(call)
    axis = along(axis, len(view.dims))
    if index is None or index.dtype.kind not in "iu" or index.ndim > 8 or not 0 < index.size <= 2**16:
        raise FileError("gathers with indices that are not constant")
    places = np.array([along(int(place), view.sizes[axis]) for place in index.reshape(-1)])
    if (np.diff(places) == 1).all():
        view = net.part(view, axis, int(places[0]), int(places[-1]) + 1, call.label)
    else:
        view = net.pick(view, axis, places, call.label)
    return replace(
        view, dims=(*view.dims[:axis], *views.reshaped((view.dims[axis],), index.shape), *view.dims[axis + 1 :])
    )


def _before_the_end(call: Call) -> View:
    """The first input, to take a part of; not probabilities, as their softmax covers all classes."""
    view = call.any_view()
    if view.ended:
        raise FileError(f"takes part of the result of {view.ended}; export the network with all of its classes")
    return view


def repeated(net: Network, call: Call) -> View:
    """Tile and Expand, of the one channel of a grey image."""
    view, given = call.any_view(), call.constant(1)
    sizes = view.sizes
    if given is None:
        raise FileError("lacks the number of repeats or the shape")
    if call.kind == "Tile":
        target = [size * times for size, times in zip(sizes, given, strict=False)] if len(given) == len(sizes) else []
    elif len(given) <= len(sizes) and all(
        a in (1, b) or b == 1 for a, b in zip(given[::-1], sizes[::-1], strict=False)
    ):
        target = list(np.broadcast_shapes(sizes, tuple(given)))
    else:
        target = []
    grown = [axis for axis, (a, b) in enumerate(zip(sizes, target, strict=False)) if a != b]
    if target and not grown:
        return view
    one = len(target) == 4 and len(grown) == 1 and grown[0] in (1, 3) and sizes[grown[0]] == view.node.shape[-1] == 1
    if not one or view.ended or not 1 < target[grown[0]] <= _MOST_COPIES:
        raise FileError(f"repeats {shown(sizes)} by {shown(given)}; only one channel can be repeated")
    return replace(net.join([view] * target[grown[0]], grown[0], call.label), pixels=view.pixels)


def identity(call: Call) -> View:
    """Identity."""
    return call.any_view()


def dropout(call: Call) -> View:
    """Dropout, which does nothing at inference."""
    call.attributes.real("ratio", 0.5)
    call.attributes.whole("seed", 0)
    training = call.values[2] if len(call.values) > 2 else None
    if training is not None and (not isinstance(training, Array) or training.any()):
        raise FileError("is dropout in training mode")
    return call.any_view()


def cast(call: Call) -> View:
    """Cast, to floats."""
    view, to = call.any_view(), call.attributes.number_type("to")
    call.attributes.whole("saturate", 1)
    if to not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        raise FileError(f"casts a result to {number_type(to)}; only floats are supported")
    return _floats(view)


def cast_like(call: Call) -> Value:
    """CastLike, to floats."""
    value, like = call.values[0], call.values[1] if len(call.values) > 1 else None
    value, like = (given.real() if isinstance(given, Coded) else given for given in (value, like))
    if value is None or like is None or (like.pixels if isinstance(like, View) else like.dtype.kind != "f"):
        raise FileError("casts a result to something other than floats")
    if isinstance(value, View):
        return _floats(call.any_view())
    call.budget.spend(value.size)
    return value.astype(np.float32 if isinstance(like, View) else like.dtype)


def _floats(view: View) -> View:
    """Floats or an image's bytes as floats."""
    if view.node.tensor.number != "float32":
        raise FileError("casts quantized numbers to floats; only DequantizeLinear can")
    return replace(view, pixels=False)


def transpose(call: Call) -> View:
    """Transpose."""
    view = call.any_view()
    order = call.attributes.ints("perm")
    return views.transposed(view, range(len(view.dims))[::-1] if order is None else order)


def reshape(call: Call) -> View:
    """Reshape."""
    view, wanted = call.any_view(), call.constant(1)
    if wanted is None:
        wanted = call.attributes.ints("shape") or []
    target = target_shape(view.sizes, wanted, call.attributes.whole("allowzero", 0))
    return replace(view, dims=views.reshaped(view.dims, target))


def flatten(call: Call) -> View:
    """Flatten."""
    view, axis = call.any_view(), call.attributes.whole("axis", 1)
    if not -len(view.dims) <= axis <= len(view.dims):
        raise FileError(f"flattens {shown(view.sizes)} at axis {axis}")
    axis = axis + len(view.dims) if axis < 0 else axis
    target = [int(np.prod(part, dtype=object)) for part in (view.sizes[:axis], view.sizes[axis:])]
    return replace(view, dims=views.reshaped(view.dims, target))


def squeeze(call: Call) -> View:
    """Squeeze."""
    view, axes = call.any_view(), call.axes(1)
    if axes is None:
        axes = [i for i, dim in enumerate(view.dims) if not dim]
    if any(view.dims[axis] for axis in axes):
        raise FileError(f"squeezes axes {shown(axes)} of {shown(view.sizes)}")
    return replace(view, dims=tuple(dim for i, dim in enumerate(view.dims) if i not in axes))


def unsqueeze(call: Call) -> View:
    """Unsqueeze."""
    view, given = call.any_view(), call.constant(1)
    given = call.attributes.ints("axes") or [] if given is None else given
    axes = {along(axis, len(view.dims) + len(given)) for axis in given}
    if len(axes) != len(given) or len(given) > 8:
        raise FileError(f"unsqueezes {shown(view.sizes)} at {shown(given)}")
    rest = iter(view.dims)
    return replace(view, dims=tuple(() if i in axes else next(rest) for i in range(len(view.dims) + len(axes))))


def shape(call: Call) -> Array:
    """Shape, for a batch of one."""
    start, end = call.attributes.whole("start", 0), call.attributes.whole("end", len(call.any_view().dims))
    return np.array(call.any_view().sizes[start:end], np.int64)


def softmax(call: Call) -> View:
    """Softmax and LogSoftmax, which end the network."""
    view = call.view()
    older = call.opset < 13  # all axes from this one on, merged
    axis = along(call.attributes.whole("axis", 1 if older else -1), len(view.dims))
    over = view.dims[axis:] if older else view.dims[axis : axis + 1]
    if view.node.tensor.number != "float32":
        raise FileError("is of quantized numbers; dequantize them first")
    if sum(map(len, over)) != sum(map(len, view.dims)):
        raise FileError(f"is over axis {axis} of {shown(view.sizes)}, which is not all classes")
    return replace(view, ended=call.kind)
