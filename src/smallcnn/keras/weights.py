"""The weights of a Keras file, layer by layer, in the formats of Keras 1 and 2 and of Keras 3.

    1, 2   a group per layer of the outermost model, with the names of its tensors in order; a nested model has one
           group for all of its layers, trainable ones first
    3      a group per layer inside that of its model, named by class and number, with numbered tensors

The file is HDF5. Links out of it are not followed, and no more is read than its size allows.
"""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown
from smallcnn.keras.description import Description, Layer, running_leaves
from smallcnn.keras.tensors import tensor_names

Array = np.ndarray
Path = tuple[Layer, ...]
Names = tuple[str, ...]

_LISTS = ("layers", "_layer_checkpoint_dependencies")  # the latter in the first versions of the format
_MOST_COMPRESSED = 100  # times its file's size
_ALWAYS_ALLOWED = 64 * 2**20  # bytes
_DEEPEST = 20
_KEYS = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_ENDINGS = {"_W": "kernel", "_b": "bias", "_running_mean": "moving_mean", "_running_std": "moving_variance"}  # Keras 1


@contextmanager
def damaged() -> Iterator[None]:
    """Wraps accesses to an HDF5 file, whose library raises many kinds of exceptions."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise FileError(f"damaged: its HDF5 cannot be read ({said})") from error


class Tensors:
    """The tensors of an HDF5 file, limited to what a file of `size` bytes can hold."""

    def __init__(self, size: int) -> None:
        self.allowed = max(_MOST_COMPRESSED * size, _ALWAYS_ALLOWED)
        self.left = self.allowed

    def child(self, group: Any, name: str) -> Any:
        """The item at a path in a group; None if there is none. FileError if it is an external link."""
        with damaged():
            return self._child(group, name)

    def _child(self, group: Any, name: str) -> Any:
        import h5py

        for part in name.split("/"):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) and part else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise FileError(f"{shown(name)} is a link to another place, which is not followed")
            group = group[part]
        return group

    def array(self, group: Any, name: str) -> Array:
        """A tensor, as floats or whole numbers."""
        with damaged():
            return self._array(group, name)

    def _array(self, group: Any, name: str) -> Array:
        import h5py

        dataset = self._child(group, name)
        if not isinstance(dataset, h5py.Dataset):
            raise FileError(f"damaged: it lacks the tensor {shown(name)}")
        if dataset.external or dataset.is_virtual:
            raise FileError(f"{shown(name)} is stored in another file, which is not read")
        if dataset.dtype.kind not in "fiu":
            raise FileError(f"{shown(name)} holds {dataset.dtype}, not numbers")
        self.left -= dataset.nbytes
        if self.left < 0:
            raise FileError(f"damaged: {shown(name)} claims to be larger than its file")
        value = np.asarray(dataset)
        if not np.isfinite(value).all():
            raise FileError(f"{shown(name)} holds values that are infinite or NaN")
        return value


def names_in(attributes: Any, key: str) -> list[str]:
    """Names that Keras stores in one attribute, or, if long, in several numbered from 0."""
    with damaged():
        return _names_in(attributes, key)


def _names_in(attributes: Any, key: str) -> list[str]:
    parts = [key] if key in attributes else [f"{key}0"]
    if parts[0] not in attributes:
        raise FileError(f"damaged: it lacks {key}")
    while (more := f"{key}{len(parts)}") in attributes:
        parts.append(more)
    return [text(name) for part in parts for name in attributes[part]]


def text(value: Any) -> str:
    """An attribute's text, which older versions store as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def own_name(stored: str) -> str:
    """ "conv2d_3/kernel_1:0" -> "kernel"; in Keras 1, conv2d_3_W."""
    name = re.sub(r"_\d+$", "", stored.rpartition("/")[2].partition(":")[0])
    for ending, meaning in _ENDINGS.items():
        if name.endswith(ending):
            return meaning
    return next((key for key in ("gamma", "beta") if name.endswith(key)), name)


def named(file: Any, tensors: Tensors, model: Description | None) -> dict[str, Array]:
    """The tensors by "layer/tensor", in execution order if the file describes it, else in file order."""
    if model is not None:
        weights = Weights(file, tensors, model)
        leaves = [(path, keys) for path in running_leaves(model) if (keys := tensor_names(path[-1]))]
        layers = [(path[-1].name, keys, weights.of(path)) for path, keys in leaves]
        return _unique(
            [(name, key, value) for name, keys, values in layers for key, value in zip(keys, values, strict=False)]
        )
    root = tensors.child(file, "model_weights") or file
    with damaged():
        by_order = any(key in root.attrs for key in ("layer_names", "layer_names0"))
    return _unique(list(_listed(root, tensors) if by_order else _walked(root, tensors, 0)))


def _unique(found: Sequence[tuple[str, str, Array]]) -> dict[str, Array]:
    """Tensors by name; a second layer of the same name gets a number."""
    result: dict[str, Array] = {}
    again: Counter[str] = Counter()
    for layer, key, value in found:
        name = f"{layer}/{key}" if not again[layer] else f"{layer}.{again[layer]}/{key}"
        if name in result:
            again[layer] += 1
            name = f"{layer}.{again[layer]}/{key}"
        result[name] = value
    return result


def _listed(root: Any, tensors: Tensors) -> Iterator[tuple[str, str, Array]]:
    """Tensors of Keras 1 and 2 without a description."""
    for layer in names_in(root.attrs, "layer_names"):
        group = tensors.child(root, layer)
        if group is None:
            raise FileError(f"damaged: it lacks the weights for the layer {shown(layer)}")
        for stored in names_in(group.attrs, "weight_names"):
            owner = stored.rpartition("/")[0]
            owner = layer if not owner or owner.endswith(f"/{layer}") else owner
            value = tensors.array(group, stored)
            yield owner, _of_depthwise(owner, own_name(stored), value), value


def _of_depthwise(layer: str, key: str, value: Array) -> str:
    """The name of a Keras 2 kernel: a depthwise one has one filter per channel."""
    one_each = value.ndim == 4 and value.shape[3] == 1 < min(value.shape[:3])
    return "depthwise_kernel" if key == "kernel" and (one_each or "depthwise" in layer) else key


def _walked(group: Any, tensors: Tensors, depth: int) -> Iterator[tuple[str, str, Array]]:
    """Tensors of Keras 3 without a description, by class and number."""
    if depth > _DEEPEST:
        raise FileError(f"models nested more than {_DEEPEST} deep")
    lists = next((found for name in _LISTS if (found := tensors.child(group, name)) is not None), None)
    if lists is None:
        raise FileError("an HDF5 file, but not Keras weights")
    with damaged():
        slots = sorted(
            lists, key=lambda slot: (re.sub(r"_\d+$", "", slot), int((re.findall(r"_(\d+)$", slot) or [0])[0]))
        )
    for slot in slots:
        layer, values = tensors.child(lists, slot), tensors.child(lists, f"{slot}/vars")
        if values is None:
            continue
        if any(tensors.child(layer, name) is not None for name in _LISTS):
            yield from _walked(layer, tensors, depth + 1)
            continue
        with damaged():
            name, count = text(values.attrs.get("name", slot)), min(len(values), 16)
        keys = _KEYS.get(re.sub(r"_\d+$", "", slot), ())
        if "gamma" in keys:
            keys = keys[-count:]  # a batch norm without scale has no gamma
        for i in range(count):
            yield name, keys[i] if i < len(keys) else str(i), tensors.array(values, str(i))


class Weights:
    """The tensors of each layer of a model, in Keras' creation order."""

    def __init__(self, file: Any, tensors: Tensors, model: Description) -> None:
        self.tensors, self.model = tensors, model
        self.root = tensors.child(file, "model_weights") or file
        with damaged():
            self.by_order = any(key in self.root.attrs for key in ("layer_names", "layer_names0"))
        self.inside: dict[str, Mapping[Names, list[str]]] = {}

    def of(self, path: Path) -> list[Array]:
        """The tensors of a layer. FileError if the file lacks them."""
        return self._by_order(path) if self.by_order else self._by_slot(path)

    def _by_slot(self, path: Path) -> list[Array]:
        """The tensors of a layer in a Keras 3 file."""
        group = self.root
        for layer in path:
            lists = (self.tensors.child(group, name) for name in _LISTS)
            group = next((found for some in lists if some and (found := self.tensors.child(some, layer.slot))), None)
            if group is None:
                raise FileError(f"the file has no weights for the layer {shown(layer.name)}")
        values = self.tensors.child(group, "vars")
        with damaged():
            count = 0 if values is None else len(values)
        return [self.tensors.array(values, str(i)) for i in range(min(count, 16))]

    def _by_order(self, path: Path) -> list[Array]:
        """The tensors of a layer in a Keras 1 or 2 file."""
        outer = path[0]
        group = self.tensors.child(self.root, outer.name)
        if group is None:
            raise FileError(f"the file has no weights for the layer {shown(outer.name)}")
        names = names_in(group.attrs, "weight_names")
        if len(path) > 1:
            if outer.name not in self.inside:
                self.inside[outer.name] = self._told_apart(outer, names)
            names = list(self.inside[outer.name].get(tuple(layer.name for layer in path[1:]), ()))
        return [self.tensors.array(group, name) for name in names[:16]]

    def _told_apart(self, outer: Layer, names: list[str]) -> Mapping[Names, list[str]]:
        """Assigns a model's tensors to its layers: by layer name, or else in order, kind by kind."""
        assert outer.model is not None
        leaves = {tuple(layer.name for layer in path): list(tensor_names(path[-1])) for path in outer.model.leaves()}
        by_layer: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_layer[name.split("/")[-2] if "/" in name else ""].append(name)
        called = [path[-1] for path, keys in leaves.items() if keys]
        told = {path: by_layer.get(path[-1], []) if keys else [] for path, keys in leaves.items()}
        if len(set(called)) == len(called) and all(len(told[path]) == len(keys) for path, keys in leaves.items()):
            return told
        queues: dict[str, deque[str]] = defaultdict(deque)
        for name in names:
            queues[_alike(own_name(name))].append(name)
        return {
            path: [queues[_alike(key)].popleft() for key in keys if queues[_alike(key)]]
            for path, keys in leaves.items()
        }


def _alike(key: str) -> str:
    """Keras 3 uses one name for the kernels of depthwise and other convolutions."""
    return "kernel" if key == "depthwise_kernel" else key
