"""The description that any version of Keras stores with a model, as plain values. Nothing in it is executed.

    Sequential             consecutive layers; a list in Keras 1 and early 2, later an object
    Model, Functional      layers with inbound_nodes (their inputs): lists until Keras 2, objects with args in Keras 3

A model may be a layer of another model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

_MODELS = ("Sequential", "Functional", "Model")
_DEEPEST = 20
_MOST_LAYERS = 10_000
_MOST_ARGUMENTS = 1_000


@dataclass(frozen=True)
class Ref:
    """A result: one output of one call of a layer."""

    layer: str
    call: int
    output: int


Argument = Ref | tuple[Ref, ...] | object
"""An argument of a call: one result, several, or a constant."""


@dataclass(frozen=True)
class Called:
    """One call of a layer."""

    arguments: tuple[Argument, ...]
    named: Mapping[str, Argument]

    @property
    def refs(self) -> list[Ref]:
        """The results that it reads, in order."""
        found: list[Ref] = []
        for argument in (*self.arguments, *self.named.values()):
            if isinstance(argument, Ref):
                found.append(argument)
            elif isinstance(argument, tuple):
                found.extend(argument)
        return found


@dataclass(frozen=True)
class Layer:
    """A layer, or an operation between layers: its class, settings and calls.

    `slot` names its weights within its model in Keras 3 files. `model` holds the layers if the layer is itself a model;
    `foreign` means the class is not part of Keras.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[Called, ...]
    slot: str
    model: "Description | None" = None
    foreign: bool = False


@dataclass(frozen=True)
class Description:
    """Layers by name in file order, with the model's inputs and outputs."""

    name: str
    layers: Mapping[str, Layer]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]

    def leaves(self, path: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, ...]]:
        """The layers that are not models, each preceded by its enclosing models."""
        for layer in self.layers.values():
            if layer.model is None:
                yield (*path, layer)
            else:
                yield from layer.model.leaves((*path, layer))


def running(model: Description) -> list[tuple[Ref, Layer, Called]]:
    """The calls that the model's outputs need, each after its inputs, in the order of its inputs."""
    order: list[tuple[Ref, Layer, Called]] = []
    known = {(ref.layer, ref.call) for ref in model.inputs}
    waiting = [(ref, False) for ref in reversed(model.outputs)]
    begun: set[tuple[str, int]] = set()
    while waiting:
        ref, ready = waiting.pop()
        key = (ref.layer, ref.call)
        if key in known:
            continue
        layer = model.layers.get(ref.layer)
        if layer is None or not 0 <= ref.call < len(layer.calls):
            raise FileError(f"damaged: no call {ref.call} of the layer {shown(ref.layer)}")
        call = layer.calls[ref.call]
        if ready:
            known.add(key)
            order.append((ref, layer, call))
            continue
        if key in begun:
            raise FileError(f"damaged: the layer {shown(ref.layer)} reads its own result")
        begun.add(key)
        waiting.append((ref, True))
        waiting.extend((source, False) for source in reversed(call.refs))
    return order


def running_leaves(model: Description, path: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, ...]]:
    """The layers that are not models in execution order, each once, preceded by its enclosing models."""
    seen: set[str] = set()
    for _, layer, _ in running(model):
        if layer.name in seen:
            continue
        seen.add(layer.name)
        if layer.model is None:
            yield (*path, layer)
        else:
            yield from running_leaves(layer.model, (*path, layer))


def describe(stored: Any) -> Description:
    """The model of a parsed JSON description. Raises FileError if it is damaged or of a class outside Keras."""
    kind = _entry(stored, "class_name", str)
    if kind not in _MODELS:
        raise FileError(f"its model is of the class {shown(kind)}, whose layers only its Python code connects")
    try:
        return _model(kind, _entry(stored, "config", (dict, list)), 0)
    except RecursionError:
        raise FileError("damaged: its description is nested too deeply") from None


def _model(kind: str, config: Any, depth: int) -> Description:
    if depth > _DEEPEST:
        raise FileError(f"models nested more than {_DEEPEST} deep")
    name = str(config.get("name") or "model") if isinstance(config, dict) else "model"
    listed = config if isinstance(config, list) else _entry(config, "layers", list)
    if len(listed) > _MOST_LAYERS:
        raise FileError(f"{len(listed)} layers; at most {_MOST_LAYERS} are supported")
    layers: dict[str, Layer] = {}
    slots: Counter[str] = Counter()
    for entry in listed:
        layer = _layer(entry, slots, depth)
        if layer.name in layers:
            raise FileError(f"damaged: two layers are called {shown(layer.name)}")
        layers[layer.name] = layer
    if kind == "Sequential":
        return _chained(name, layers, config)
    inputs, outputs = (_ends(config, key) for key in ("input_layers", "output_layers"))
    return Description(
        name, {key: _from_first_call(layer, layers, outputs) for key, layer in layers.items()}, inputs, outputs
    )


def _layer(entry: Any, slots: Counter[str], depth: int) -> Layer:
    kind, config = _entry(entry, "class_name", str), _entry(entry, "config", (dict, list))
    name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if not isinstance(name, str) or not name:
        name = f"{kind.lower()}_{sum(slots.values())}"
    model = _model(kind, config, depth + 1) if kind in _MODELS else None
    calls = tuple(_called(node) for node in entry.get("inbound_nodes") or ())
    slot = _snake(kind)
    slots[slot] += 1
    if slots[slot] > 1:
        slot = f"{slot}_{slots[slot] - 1}"
    foreign = ">" in str(entry.get("registered_name") or "")
    return Layer(kind, name, config if isinstance(config, dict) else {}, calls, slot, model, foreign)


def _snake(name: str) -> str:
    """A class name as the name of a group of weights in Keras: BatchNormalization -> batch_normalization."""
    letters = [character for character in name if character.isalnum() or character == "_"]
    text = ""
    for i, letter in enumerate(letters):
        before, after = letters[i - 1] if i else "", letters[i + 1] if i + 1 < len(letters) else ""
        starts = letter.isupper() and before and (after.islower() or before.islower())
        text += f"_{letter}" if starts else letter
    return text.lower()


def _chained(name: str, layers: Mapping[str, Layer], config: Any) -> Description:
    """A sequence: each layer reads the previous one, the first an input that the file may omit."""
    if not layers:
        raise FileError(f"the sequence {shown(name)} has no layers")
    first = next(iter(layers.values()))
    chain: dict[str, Layer] = {}
    if first.kind != "InputLayer":
        shape = _first_shape(first, config)
        chain["input"] = Layer("InputLayer", "input", {"batch_shape": shape}, (Called((), {}),), "input_layer")
    before: str | None = next(iter(chain), None)
    for layer in layers.values():
        read: tuple[Ref, ...] = () if before is None else (Ref(before, 0, 0),)
        chain[layer.name] = replace(layer, calls=(Called(read, {}),))
        before = layer.name
    start, end = next(iter(chain)), next(reversed(chain))
    return Description(name, chain, (Ref(start, 0, 0),), (Ref(end, 0, 0),))


def _first_shape(first: Layer, config: Any) -> Any:
    """The input shape of a sequence without an input layer: from its first layer or the sequence."""
    own = first.config.get("batch_input_shape") or first.config.get("batch_shape")
    if own is None and first.model is not None:
        start = first.model.layers.get(first.model.inputs[0].layer) if first.model.inputs else None
        own = start and (start.config.get("batch_input_shape") or start.config.get("batch_shape"))
    if own is None and isinstance(config, dict):
        own = config.get("build_input_shape")
    return own


def _called(node: Any) -> Called:
    """One entry of inbound_nodes."""
    if isinstance(node, dict):  # Keras 3
        arguments = tuple(_argument(value) for value in _bounded(node.get("args", [])))
        named = {str(key): _argument(value) for key, value in dict(node.get("kwargs") or {}).items()}
        return Called(arguments, named)
    if not isinstance(node, list):
        raise FileError(f"damaged: malformed call {shown(node)}")
    listed = [node] if node and isinstance(node[0], str) else _bounded(node)
    arguments, named = (), {}
    for entry in listed:
        if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[0], str):
            raise FileError(f"damaged: a call with {shown(entry)}")
        arguments += (entry[2] if entry[0] == "_CONSTANT_VALUE" else _ref(entry[:3]),)
        if len(entry) == 4 and isinstance(entry[3], dict):
            named |= {str(key): _argument(value) for key, value in entry[3].items()}
    return Called(arguments, named)


def _argument(value: Any) -> Argument:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return _ref(_entry(_entry(value, "config", dict), "keras_history", list))
    if _is_ref(value):
        return _ref(value)
    if isinstance(value, list) and value:
        parts = [_argument(part) for part in _bounded(value)]
        refs = tuple(part for part in parts if isinstance(part, Ref))
        if len(refs) == len(parts):
            return refs
    return value


def _is_ref(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and all(
        isinstance(number, int) for number in value[1:]
    )  # fmt: skip


def _ref(value: Any) -> Ref:
    if not _is_ref(value):
        raise FileError(f"damaged: {shown(value)} is not a layer, call and output")
    return Ref(value[0], value[1], value[2])


def _bounded(values: Any) -> list[Any]:
    if not isinstance(values, list) or len(values) > _MOST_ARGUMENTS:
        raise FileError(f"damaged: a call with the arguments {shown(values)}")
    return values


def _ends(config: Any, key: str) -> tuple[Ref, ...]:
    """The model's inputs or outputs: one, a list, or named ones."""
    stored = config.get(key) if isinstance(config, dict) else None
    if isinstance(stored, dict):
        stored = list(stored.values())
    if _is_ref(stored):
        return (_ref(stored),)
    return tuple(_ref(end[:3] if isinstance(end, list) else end) for end in _bounded(stored))


def _from_first_call(layer: Layer, layers: Mapping[str, Layer], outputs: tuple[Ref, ...]) -> Layer:
    """Renumbers the calls of a nested model from 0; most versions count from 1, as the model has its own call."""
    if layer.model is None:
        return layer
    readers = [ref for other in layers.values() for call in other.calls for ref in call.refs]
    numbers = {ref.call for ref in (*readers, *outputs) if ref.layer == layer.name}
    if numbers and min(numbers) == 1 and max(numbers) == len(layer.calls):
        return replace(layer, calls=(Called((), {}), *layer.calls))
    return layer


def _entry(record: Any, key: str, kind: Any) -> Any:
    """`record[key]`; FileError unless it is there and of this kind."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise FileError(f"damaged: its description has no {key!r} in {shown(record)}")
    return value
