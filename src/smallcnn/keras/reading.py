"""Turns a Keras model's description and weights into graph and weights: layers become operators in execution order.

Layers of nested models are taken in execution order, wherever they are and whatever their names. Rescaling and
normalisation at the front become the image preparation; a softmax or sigmoid at the end becomes the ending.

A layer without a matching operator is an error that names it. Nothing from the file is executed, so Lambda layers and
custom classes are errors too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from smallcnn.errors import FileError, GraphError
from smallcnn.foreign.budget import Budget
from smallcnn.foreign.channels_last import FED, fed, plain, told
from smallcnn.foreign.entry import composed
from smallcnn.foreign.labels import usual_labels
from smallcnn.foreign.network import Network
from smallcnn.foreign.reading import Read, finished, vector
from smallcnn.foreign.views import View
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir.checks import is_whole, shown
from smallcnn.ir.types import LOGITS
from smallcnn.keras.call import Call, Value
from smallcnn.keras.description import Called, Description, Layer, Ref, describe, running
from smallcnn.keras.layers import FUNCTIONS, READERS
from smallcnn.keras.weights import Tensors, Weights
from smallcnn.model.facts import Facts
from smallcnn.model.model import Model
from smallcnn.tasks.classification import Classification


@dataclass(frozen=True)
class Stored:
    """A Keras file: parsed description, HDF5 weights, size in bytes, major version that wrote it."""

    description: Any
    weights: Any
    size: int
    version: int


def read_keras(stored: Stored, name: str, overrides: Overrides | None = None) -> Model:
    """The network that the file describes. `overrides` states the image preparation where the file does not.

    Raises FileError if it is damaged or needs an operator the graph lacks.
    """
    overrides = overrides or Overrides()
    model = describe(stored.description)
    tensors = Tensors(stored.size)
    weights = Weights(stored.weights, tensors, model)
    network = Network(_image(model, overrides.plane), Budget(tensors.allowed // 32))
    (result,) = _Run(network, weights, stored.version).model(model, (), [plain(network.input)])
    read = finished(network, {LOGITS: vector(network, result)}, name, result.ended, "sigmoid")
    preprocessing, said = _preparation(read, overrides)
    facts = Facts(keras={"images": said, "dropped": read.dropped})
    task = Classification(usual_labels(read.graph.output_shape[0]), read.ending)
    return Model(read.graph, read.weights, task, preprocessing, facts)


def _image(model: Description, plane: tuple[int, int] | None) -> tuple[int, int, int]:
    """(H, W, C) of the image."""
    for what, ends in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(ends) != 1:
            raise FileError(f"has {len(ends)} {what}; a classifier has one")
    first = model.layers.get(model.inputs[0].layer)
    shape: Any = None
    while first is not None and first.model is not None:
        first = first.model.layers.get(first.model.inputs[0].layer) if first.model.inputs else None
    if first is not None:
        shape = next((found for key in ("batch_input_shape", "batch_shape", "shape")
                      if (found := first.config.get(key)) is not None), None)  # fmt: skip
    if not isinstance(shape, list | tuple) or len(shape) != 4 or shape[3] not in (1, 3):
        raise FileError(f"takes {shown(shape)}, not images of (batch, height, width, 1 or 3)")
    resized = _resized(model, plane)
    sides = [side if side is not None else resized[i] for i, side in enumerate(shape[1:3])]
    if plane is not None and tuple(sides) != plane:
        raise FileError(
            f"was made for {shown(shape)}, which is fixed; its resolution cannot become {plane[0]}x{plane[1]}"
        )
    if None in sides:
        raise FileError(f"takes {shown(shape)}, any height and width: choose one, as in --resolution 224x224")
    if not all(is_whole(side) for side in sides):
        raise FileError(f"takes {shown(shape)}, whose sides are not whole numbers of at least 1")
    return sides[0], sides[1], shape[3]


def _resized(model: Description, plane: tuple[int, int] | None) -> tuple[Any, Any]:
    """The input size of a network of open size: the requested one, or that of a layer that resizes the image."""
    first = [layer for layer in model.layers.values() for call in layer.calls if model.inputs[0] in call.refs]
    if plane is None and len(first) == 1 and first[0].kind == "Resizing":
        return first[0].config.get("height"), first[0].config.get("width")
    return plane or (None, None)


class _Run:
    """Runs models on views, as Keras does on tensors."""

    def __init__(self, network: Network, weights: Weights, version: int) -> None:
        self.network, self.weights, self.version = network, weights, version
        self.steps = 0

    def model(self, model: Description, path: tuple[Layer, ...], inputs: list[View]) -> list[View]:
        """The results of a model for these inputs; runs each needed call once, after its inputs."""
        done: dict[tuple[str, int], list[View]] = {}
        if len(inputs) != len(model.inputs):
            raise FileError(f"the model {shown(model.name)} reads {len(model.inputs)} results, not {len(inputs)}")
        for end, view in zip(model.inputs, inputs, strict=True):
            done[end.layer, end.call] = [view]
        for ref, layer, call in running(model):
            done[ref.layer, ref.call] = self._call(layer, path, call, done)
        return [_output(done, ref) for ref in model.outputs]

    def _call(
        self, layer: Layer, path: tuple[Layer, ...], call: Called, done: Mapping[tuple[str, int], list[View]]
    ) -> list[View]:
        self.steps += 1
        if self.steps > 10_000:
            raise FileError("runs more than 10,000 layers")
        given = partial(_given, done)
        here = (*path, layer)
        if layer.model is not None:
            inputs = [_output(done, ref) for ref in call.refs]
            return self.model(layer.model, here, inputs)
        label = ".".join(part.name for part in here)
        try:
            layer = _operation(layer)
            if layer.kind not in READERS or layer.foreign:
                raise FileError(_refusal(layer))
            found = Call(
                layer, [given(value) for value in call.arguments], {key: given(v) for key, v in call.named.items()},
                label, self.version, lambda: self.weights.of(here),
            )  # fmt: skip
            made = READERS[layer.kind](self.network, found)
            return [replace(made, label=label)]
        except (FileError, GraphError) as error:
            raise FileError(f"the layer {shown(label)} ({layer.kind}): {error}") from error


def _output(done: Mapping[tuple[str, int], list[View]], ref: Ref) -> View:
    made = done[ref.layer, ref.call]
    if not 0 <= ref.output < len(made):
        raise FileError(f"damaged: {shown(ref.layer)} has {len(made)} results, not {ref.output + 1}")
    return made[ref.output]


def _given(done: Mapping[tuple[str, int], list[View]], argument: object) -> Value:
    """An argument with references replaced by results."""
    if isinstance(argument, Ref):
        return _output(done, argument)
    if isinstance(argument, tuple):
        return [_output(done, ref) for ref in argument if isinstance(ref, Ref)]
    return argument


def _operation(layer: Layer) -> Layer:
    """TensorFlow's operations, which Keras 2 writes as layers, under their Keras 3 names."""
    if layer.kind == "TFOpLambda":
        function = layer.config.get("function")
    elif layer.kind == "TensorFlowOpLayer":
        node = layer.config.get("node_def")
        function = node.get("op") if isinstance(node, dict) else _op_in(str(node))
        constants = layer.config.get("constants")
        if isinstance(constants, dict) and constants:
            raise FileError(f"is TensorFlow's {shown(function)} with constants, which is not supported")
    else:
        return layer
    if function not in FUNCTIONS:
        raise FileError(f"is TensorFlow's {shown(function)}, which the graph does not have")
    return replace(layer, kind=FUNCTIONS[str(function)], foreign=False)


def _op_in(text: str) -> str:
    """The operation's name in the text form of a NodeDef."""
    _, _, rest = text.partition("op: ")
    return rest.strip().strip('"').partition('"')[0]


def _refusal(layer: Layer) -> str:
    if layer.kind == "Lambda":
        return "it is Python code, which is not run"
    if layer.foreign:
        return "its class is not part of Keras, and the file does not hold its code"
    return "the graph has no operator for it"


def _preparation(read: Read, overrides: Overrides) -> tuple[Preprocessing, str]:
    """The image preparation, and whether it was "given", is "in the file" or "assumed"."""
    pixels = None if overrides.says_numbers else told(read.done)
    usual = overrides.over(fed(read.graph, *FED[pixels or "-1..1"]))
    said = "given" if overrides.says_numbers else "in the file" if pixels else "assumed"
    return composed(usual, read.entry), said
