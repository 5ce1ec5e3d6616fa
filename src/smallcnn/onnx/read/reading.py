"""Reads any small CNN's ONNX file as a model: its operators are converted to the graph's one by one.

Files from `onnx.write` keep their task, preprocessing and facts. Other files take an image of floats or bytes, channels
first or last; `preparation` determines its preparation. Labels come from the file's tail, or are ImageNet's for 1,000
classes. A softmax or sigmoid at the end is removed and becomes the task's ending.

An operator the graph lacks is an error that names it. The network is read for a batch of one.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from smallcnn.errors import FileError, GraphError
from smallcnn.foreign import views
from smallcnn.foreign.budget import Budget
from smallcnn.foreign.channels_last import ORDER
from smallcnn.foreign.decodings import decoding_at, decoding_of
from smallcnn.foreign.detectors import outputs
from smallcnn.foreign.integers import integers
from smallcnn.foreign.labels import usual_labels
from smallcnn.foreign.names import Names
from smallcnn.foreign.network import Network
from smallcnn.foreign.reading import Read, finished, vector
from smallcnn.foreign.simplify import simplify
from smallcnn.foreign.views import Array, View
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.ir.types import LOGITS
from smallcnn.model.facts import Facts
from smallcnn.model.metadata import check_format, facts_of, task_of, text_of
from smallcnn.model.model import Model
from smallcnn.model.sightings import end_of
from smallcnn.onnx.read import older
from smallcnn.onnx.read.call import Call, Value
from smallcnn.onnx.read.codes import Coded
from smallcnn.onnx.read.constants import Constants, evaluate
from smallcnn.onnx.read.external import DataFiles
from smallcnn.onnx.read.file import File, Step, parse, unpack
from smallcnn.onnx.read.layout import input_shape, sides_of
from smallcnn.onnx.read.operators import COMPUTING, MOVING, REFUSED
from smallcnn.onnx.read.outline import check_ordinary
from smallcnn.onnx.read.parts import PARTS
from smallcnn.onnx.read.preparation import preparation
from smallcnn.onnx.read.quantization import of_constants
from smallcnn.onnx.read.values import Attributes
from smallcnn.system.files import check_regular
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.labels import checked_labels
from smallcnn.transform.logits import without_sigmoid

_MOST_BYTES = 2**31 - 1
"""Largest message the format's encoding allows."""


def read_onnx(path: Path | str, overrides: Overrides | None = None, *, integer: bool = True) -> Model:
    """The network of an ONNX file. `overrides` states the image preparation where the file does not.

    A quantized network computes with whole numbers if `integer`, or else with real numbers that are rounded to grids.

    Raises FileError if the file is missing, damaged, or needs an operator the graph lacks.
    """
    path = Path(path)
    check_regular(path)
    try:
        check_ordinary(path)
        if path.stat().st_size > _MOST_BYTES:
            raise FileError(f"{path.stat().st_size:,} bytes; an ONNX file has at most {_MOST_BYTES:,}")
        file = unpack(parse(path.read_bytes()), DataFiles(path.parent))
        return _model(file, path.stem, overrides or Overrides(), integer=integer)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error


def from_onnx(model: onnx.ModelProto, *, resolution: tuple[int, int] | None = None, integer: bool = True) -> Read:
    """Graph and weights of a model in memory; see `read_onnx`."""
    file = unpack(model)
    return _read(file, file.name, resolution, integer=integer)


def _model(file: File, stem: str, overrides: Overrides, *, integer: bool) -> Model:
    ours = file.is_ours
    name = file.metadata.get("smallcnn.model", stem) if ours else stem
    read = _read(file, name, overrides.plane, integer=integer)
    if ours:
        made = _ours(file, read)
        return replace(made, preprocessing=overrides.over(made.preprocessing))
    preprocessing, how = preparation(file, read, overrides)
    said = {"producer": file.producer, "opset": file.opset, "dropped": read.dropped} | how
    if file.data.files:
        said["beside"] = {name: digest(path) for name, path in file.data.files.items()}
    facts = Facts(onnx=said)
    if (end := end_of(read.graph)) is not None and (known := decoding_at(end)):
        return Model(read.graph, read.weights, Detection(known.labels), preprocessing, facts)
    labels = usual_labels(read.graph.output_shape[0])
    if file.labels and len(file.labels) == len(labels):
        labels = checked_labels(list(file.labels))
    return Model(read.graph, read.weights, Classification(labels, read.ending), preprocessing, facts)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ours(file: File, read: Read) -> Model:
    """The model from the metadata that `onnx.write` stored with the network."""
    check_format(file.metadata)
    task, facts = task_of(file.metadata), facts_of(file.metadata)
    preprocessing = Preprocessing.from_json(text_of(file.metadata, "preprocessing"))
    if facts.onnx:
        facts.onnx.pop("fed", None)  # the input of the file that this one was imported from
    done = np.array([read.entry.scale, read.entry.shift], np.float32)
    if file.image.type != TensorProto.UINT8 or not np.array_equal(preprocessing.scale_and_shift(), done):
        raise FileError("was changed after smallcnn wrote it: it prepares images differently from its metadata")
    return Model(read.graph, read.weights, task, preprocessing, facts)


def _read(file: File, name: str, resolution: tuple[int, int] | None, *, integer: bool) -> Read:
    stored = sum(value.size for value in file.constants.values())
    budget = Budget(stored)
    shape, order = input_shape(file, resolution)
    try:
        network = Network(shape, budget)
    except GraphError as error:
        raise FileError(f"takes {sides_of(file.image)}: {error}") from error
    pixels = file.image.type == TensorProto.UINT8
    image = View(network.input, views.plain(shape, order), pixels=pixels)
    values: dict[str, Value] = {**file.constants, file.image.name: image}
    last = {name: i for i, step in enumerate(file.steps) for name in step.inputs}
    last |= dict.fromkeys(file.outputs.values(), len(file.steps))
    for i, step in enumerate(file.steps):
        try:
            made = _run(step, values, network, file, last)
        except (FileError, GraphError) as error:
            raise FileError(f"{shown(step.kind)} ({shown(step.name)}): {error}") from error
        for output, value in zip(step.outputs, made, strict=False):
            values[output] = value
        for source in step.inputs:
            if last[source] == i:
                values.pop(source, None)
    results = {}
    for called, source in file.outputs.items():
        result = values.get(source)
        if not isinstance(result, View):
            raise FileError("its output does not depend on the image")
        results[called] = result
    if file.detector:
        return finished(network, _decoded(network, results), name, "Softmax", "Sigmoid")
    return _ended(network, results, name, file, integer=integer)


def _decoded(network: Network, results: Mapping[str, View]) -> dict[str, Node]:
    """The objects of a known detector that joins its parts."""
    maps = {part: network.map_first(results[part]) for part in PARTS}
    rows = [network.add(ops.Rows(columns=node.shape[2]), [node], f"{part}.rows") for part, node in maps.items()]
    known = decoding_of(network.input.shape[:2], *(node.shape for node in rows))
    if known is None:
        shapes = ", ".join(f"{part} {node.shape}" for part, node in maps.items())
        raise FileError(f"ends as a detector does ({shapes}), but its decoding is not known")
    return outputs(network, known.detect, rows, "detect")


def _ended(network: Network, results: Mapping[str, View], name: str, file: File, *, integer: bool) -> Read:
    """The graph up to its ending, and the ending stated or shown by the file."""
    ended = next((result.ended for result in results.values() if result.ended), None)
    if ended and len(results) > 1:
        raise FileError(f"ends one of its outputs in {ended}, which is supported only for a single output")
    several = len(results) > 1 or file.is_ours
    names = results if file.is_ours or not several else _names(results)
    if file.gives_probabilities:
        names = [LOGITS]
    nodes = {
        called: _map(network, result) if several else vector(network, result)
        for called, result in zip(names, results.values(), strict=True)
    }
    if not file.is_ours:
        return finished(network, nodes, name, ended, "Sigmoid", integer=integer)
    simple = simplify(network, nodes, name, "constants")
    explicit = None if file.is_quantized_by_others else {node.name for node in simple.graph} - network.implied
    graph, weights = integers(simple.graph, simple.weights, network.biases, explicit)
    task = task_of(file.metadata)
    ending = task.ending if isinstance(task, Classification) else "none"
    if file.gives_probabilities and ended is None:
        without = without_sigmoid(graph) if ending == "sigmoid" else None
        if without is None:
            raise FileError(f"was changed after smallcnn wrote it: it does not end in {ending}")
        graph, ended = without, "Sigmoid"
    return Read(graph, weights, simple.entry, simple.done, ended, ending)


def _names(outputs: Iterable[str]) -> list[str]:
    """Names of a graph's outputs from the file's."""
    names = Names()
    return [names.new(name, "output") for name in outputs]


def _map(network: Network, result: View) -> Node:
    """The node of an output: a vector, or a map with its channels first or last."""
    shape = network.ordered(result).node.shape
    for dims in (views.channels_first(shape), views.plain(shape, ORDER)):
        if len(shape) == 3 and result.dims == dims:
            return network.ordered(result).node
    return vector(network, result)


def _run(step: Step, values: dict[str, Value], network: Network, file: File, read: Collection[str]) -> list[Value]:
    """The results of one operator, at least one for each of its outputs that is in `read`."""
    given = [values[name] if name else None for name in step.inputs]
    attributes, opset = Attributes(step.attributes, file.data), file.opset
    if opset < older.FIRST_MODERN:
        given = older.modernised(step.kind, given, attributes)
    if step.kind == "Reshape":
        given = _for_one(given, file.image.sides[0])
    constants = [_constant(value) for value in given]
    outputs = len(step.outputs)
    made: list[Value]
    if step.kind in REFUSED:
        raise FileError(REFUSED[step.kind])
    if any(isinstance(value, View) for value in given):
        call = Call(step.kind, opset, constants, attributes, outputs, network.budget, given, step.name)
        if step.kind in MOVING:
            made = [MOVING[step.kind](call)]
        elif step.kind in COMPUTING:
            result = COMPUTING[step.kind](network, call)
            made = [*result] if isinstance(result, list) else [result]
        else:
            raise FileError("no operator of the graph computes this")
        if step.kind != "DequantizeLinear":  # what reads it moves the bytes before it, and is named after these
            made = [replace(value, label=step.name) if isinstance(value, View) else value for value in made]
    else:
        computed = Constants(step.kind, opset, constants, attributes, outputs, network.budget)
        codes = of_constants(computed, given[0] if given else None)
        made = [*evaluate(computed)] if codes is None else [codes]
    attributes.finish()
    if unknown := [name for name in step.outputs[len(made) :] if name in read]:
        raise FileError(
            f"another operator reads its output {shown(unknown[0])}; only the first {len(made)} outputs are supported"
        )
    return made


def _constant(value: Value | None) -> Array | None:
    """A constant's numbers; None for a result."""
    return value.real() if isinstance(value, Coded) else None if isinstance(value, View) else value


def _for_one(given: list[Value | None], batch: int | None) -> list[Value | None]:
    """The inputs of a Reshape for one image, if the file was written for a `batch` of several."""
    if len(given) != 2 or not isinstance(given[0], View) or batch in (None, 1):
        return given
    shape = given[1]
    if not isinstance(shape, np.ndarray) or shape.ndim != 1 or shape.size < 2 or shape[0] != batch:
        return given
    return [given[0], np.array([1, *shape[1:]], shape.dtype)]
