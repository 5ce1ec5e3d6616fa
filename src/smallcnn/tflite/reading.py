"""Reads any small CNN's TensorFlow Lite file as a model: its operators are converted to the graph's one by one.

A quantized file becomes a network of whole numbers. On request it becomes a float one: weights are scale * (code - zero
point), and a clip saturates where a layer's 8-bit result does. Labels and image preparation come from the file's
metadata or its input quantization; otherwise images are assumed to be scaled to -1..1. A softmax or sigmoid at the end
becomes the task's ending.

An operator the graph lacks is an error that names it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallcnn.errors import FileError, GraphError
from smallcnn.foreign import idioms, views
from smallcnn.foreign.budget import Budget
from smallcnn.foreign.channels_last import FED, ORDER, fed, told
from smallcnn.foreign.decodings import decoding_at, decoding_of
from smallcnn.foreign.detectors import outputs
from smallcnn.foreign.entry import composed
from smallcnn.foreign.labels import told_apart, usual_labels, usual_of_objects
from smallcnn.foreign.network import Network
from smallcnn.foreign.reading import Read, finished, vector
from smallcnn.foreign.views import View
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.types import LOGITS
from smallcnn.ir.types import Grid as IntegerGrid
from smallcnn.model.facts import Facts
from smallcnn.model.model import Model
from smallcnn.model.sightings import end_of
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tflite.call import Call, Value
from smallcnn.tflite.detection import post_process
from smallcnn.tflite.file import DETECTION, File, Grid, check_image, parse, read_bytes
from smallcnn.tflite.metadata import Metadata, read_metadata
from smallcnn.tflite.operators import FUSED, READERS
from smallcnn.tflite.ranges import Ranges

_FIRST = (views.CHANNELS, views.HEIGHT, views.WIDTH)
_BYTE = 255
_CODED = 2
"""Outputs of a detector that ends in codes and scores."""
_STORED = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE")
"""Operators that change how a result is stored, not what it is."""
_SHAPES = ("SHAPE", "PACK", "STRIDED_SLICE", "GATHER", "CONCATENATION", "MUL", "ADD", "SUB", "CAST", "REDUCE_PROD",
           "EXPAND_DIMS", "SQUEEZE", "RESHAPE", "FILL", "SLICE")  # fmt: skip
"""Operators that files use to compute shapes."""


def read_tflite(path: Path | str, overrides: Overrides | None = None, *, integer: bool = True) -> Model:
    """The network of a TensorFlow Lite file, with the labels and preparation from the file or `overrides`.

    A quantized network computes with whole numbers if `integer`, or else with real ones.
    Raises FileError if the file is missing, damaged, or needs an operator the graph lacks.
    """
    path = Path(path)
    try:
        content = read_bytes(path)
        file = parse(content)
        metadata = read_metadata(content, dict(file.metadata))
        read = _read(file, path.stem, len(content), integer=integer)
        return _model(file, metadata, read, overrides or Overrides())
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error


def _model(file: File, metadata: Metadata, read: Read, overrides: Overrides) -> Model:
    preprocessing, said = _preparation(file, read, metadata, overrides)
    facts = Facts(tflite={"images": said, "dropped": read.dropped})
    if (end := end_of(read.graph)) is not None:
        return Model(
            read.graph, read.weights, Detection(_found(metadata.labels, read.graph, end)), preprocessing, facts
        )
    labels = _labels(metadata.labels, read.graph.output_shape[0])
    return Model(read.graph, read.weights, Classification(labels, read.ending), preprocessing, facts)


def _found(named: tuple[str, ...] | None, graph: Graph, end: Node) -> tuple[str, ...]:
    """The file's labels of a detector's classes, without one of the background; else COCO's, or numbers."""
    assert isinstance(end.op, ops.Detect)
    if known := decoding_at(end):
        return known.labels
    classes = end.op.found_classes(graph.input_shapes(end)[1])
    names = named[-classes:] if named and len(named) in (classes, classes + 1) else ()
    return told_apart(names) if names else usual_of_objects(classes)


def _labels(named: tuple[str, ...] | None, classes: int) -> tuple[str, ...]:
    """The file's labels, if there is one per class; ours if they are ImageNet's, as some lists have two cranes."""
    usual = usual_labels(classes)
    if named is None or len(named) != classes:
        return usual
    ours = sum(name.split(",")[0] == label.split(" (")[0] for name, label in zip(named, usual, strict=True))
    return usual if ours > 0.9 * classes else told_apart(named)


def _read(file: File, name: str, size: int, *, integer: bool) -> Read:
    shape, order = _image(file)
    network = Network(shape, Budget(size // 2))
    ranges = Ranges(network)
    image = View(network.input, views.plain(shape, order))
    values: dict[int, Value] = {file.inputs[0]: image}
    if grid := file.tensors[file.inputs[0]].grid or _quantized_first(file):
        ranges.known[network.input.name] = (grid.low, grid.high)
    if integer and (grid := file.tensors[file.inputs[0]].grid) and grid.last == _BYTE:
        values[file.inputs[0]] = _rounded(network, image, grid, "image")
    *_, final = file.operators or (None,)
    finds = final is not None and final.kind == DETECTION and set(final.outputs) == set(file.outputs)
    last = {number: i for i, operator in enumerate(file.operators) for number in operator.inputs}
    ending = _ending(file)
    for i, operator in enumerate(file.operators):
        try:
            if not operator.outputs or min(operator.outputs) < 0:
                raise FileError("damaged: has no output")
            label = file.tensors[operator.outputs[0]].name.split(";")[0]
            call = Call(operator, file.tensors, values, label, integer)
            if finds and operator is final:
                return finished(network, post_process(network, call), name, None, "LOGISTIC", integer=integer)
            made = _run(network, ranges, call, ending)
        except (FileError, GraphError) as error:
            raise FileError(f"operator {i}, {operator.kind}: {error}") from error
        values.update(zip(operator.outputs, made, strict=True))
        for number in operator.inputs:
            if last[number] == i and number not in file.outputs:
                values.pop(number, None)
    if len(file.outputs) == _CODED:
        ends = _decoded(network, file, values)
        return finished(network, ends, name, None, "LOGISTIC", integer=integer)
    result = values.get(file.outputs[0])
    if not isinstance(result, View):
        raise FileError("its output does not depend on the image")
    ends = {LOGITS: vector(network, result)}
    return finished(network, ends, name, result.ended, "LOGISTIC", integer=integer)


def _decoded(network: Network, file: File, values: Mapping[int, Value]) -> dict[str, Node]:
    """The objects of a known detector that ends in codes and scores."""
    rows = [network.rows(view) for number in file.outputs if isinstance(view := values.get(number), View)]
    if len(rows) == _CODED and (coded := rows[0]) is not None and (scores := rows[1]) is not None:
        known = decoding_of(network.input.shape[:2], coded.node.shape, scores.node.shape)
        if known is not None and (scores.ended == "SOFTMAX") == (known.detect.score == "softmax"):
            box = (
                network.add(ops.Slice(start=0, stop=4), [coded.node], "boxes")
                if coded.node.shape[1] > 4
                else coded.node
            )
            return outputs(network, known.detect, [box, scores.node], "detect")
    raise _several("output", file, file.outputs)


def _several(what: str, file: File, ends: Sequence[int]) -> FileError:
    names = ", ".join(shown(file.tensors[number].name) for number in ends[:4] if number >= 0)
    return FileError(f"has {len(ends)} {what}s ({names}); a classifier has one {what}")


def _ending(file: File) -> set[int]:
    """The file's output, or a detector's scores, and the tensors that only move to become it."""
    found = set(file.outputs)
    for operator in reversed(file.operators):
        if operator.kind == DETECTION and found.intersection(operator.outputs):
            found.update(operator.inputs[1:2])  # the scores
        if operator.kind in _STORED and found.intersection(operator.outputs):
            found.update(operator.inputs[:1])
    return found


def _run(network: Network, ranges: Ranges, call: Call, ending: Collection[int]) -> list[Value]:
    """The results of one operator, one for each of its outputs; a sigmoid at the end stays exact."""
    operator = call.operator
    if missing := [n for n in operator.inputs if n >= 0 and call.tensors[n].data is None and n not in call.values]:
        raise FileError(f"reads {shown(call.tensors[missing[0]].name)}, which no earlier operator produces")
    nothing: list[Value] = [None] * len(operator.outputs)
    if not any(call.depends(i) for i in range(len(operator.inputs))):
        return _of_constants(call) or nothing
    if operator.kind == "SHAPE":
        return nothing
    if operator.kind not in READERS:
        raise FileError("no operator of the graph computes this")
    result = READERS[operator.kind](network, call)
    made = result if isinstance(result, list) else [result]
    if len(made) != len(operator.outputs):
        raise FileError(f"has {len(operator.outputs)} outputs, not {len(made)}")
    code = call.option("FusedActivationFunction")
    if code not in FUSED:
        raise FileError(f"has the fused activation {code}, which the graph does not have")
    limited: list[Value] = []
    for view, number in zip(made, operator.outputs, strict=True):
        named = replace(view, label=call.label)
        if not view.ended:
            low, high = FUSED[code]
            grid = call.tensors[number].grid
            if call.integer and operator.kind == "LOGISTIC" and number in ending:
                grid = None
            if call.integer and grid and grid.last == _BYTE:
                named = _rounded(
                    network, idioms.clip(network, named, low, high, f"{call.label}.range"), grid, call.label
                )
            else:
                named = ranges.limit(named, low, high, grid, f"{call.label}.range")
            ranges.note(named)
        limited.append(named)
    return limited


def _rounded(network: Network, view: View, grid: Grid, label: str) -> View:
    """The result as a tensor of bytes holds it: rounded to the tensor's grid."""
    wanted = IntegerGrid((grid.scale,), (grid.zero,))
    if isinstance(view.node.op, ops.Dequantize) and network.nodes[view.node.inputs[0]].tensor.grid == wanted:
        return view
    view = network.on(view, ops.Quantize(number="uint8", grid=wanted), f"{label}_bytes")
    return network.on(view, ops.Dequantize(), f"{label}_real")


def _of_constants(call: Call) -> list[Value] | None:
    """A constant after an operator that only changes its storage; None for shapes and the like."""
    match call.operator.kind:
        case "DEQUANTIZE" | "QUANTIZE":
            return [call.real(0, "constant")]
        case "TRANSPOSE":
            order = call.whole(1, "an order")
            value = call.real(0, "constant")
            if sorted(order) == list(range(value.ndim)):
                return [value.transpose(order)]
        case "RESHAPE" if call.tensor(0).number in ("FLOAT32", "FLOAT16") and min(call.output.shape, default=1) > 0:
            value = call.real(0, "constant")
            if value.size == np.prod(call.output.shape, dtype=object):
                return [value.reshape(call.output.shape)]
    if call.operator.kind not in _SHAPES:
        raise FileError("computes a constant in an unsupported way")
    return None


def _image(file: File) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(H, W, C) of the image, and the file's order of them after the batch."""
    finds = any(operator.kind == DETECTION for operator in file.operators[-1:])
    finds |= len(file.outputs) == _CODED and min(file.outputs) >= 0
    for what, ends in (("input", file.inputs), ("output", file.outputs[:1] if finds else file.outputs)):
        if len(ends) != 1 or ends[0] < 0:
            raise _several(what, file, ends)
    tensor = file.tensors[file.inputs[0]]
    check_image(tensor)
    shape = tensor.shape
    if len(shape) != 4 or shape[0] != 1:
        raise FileError(f"takes {shown(shape)}, not one image, (1, height, width, channels)")
    last = shape[3] in (1, 3)
    if not (last or (shape[1] in (1, 3) and _turned(file))):
        raise FileError(f"takes {shown(shape)}, not one image of one or three channels")
    order = ORDER if last else _FIRST
    sides = dict(zip(order, shape[1:], strict=True))
    size = (sides[views.HEIGHT], sides[views.WIDTH], sides[views.CHANNELS])
    return size, order


def _turned(file: File) -> bool:
    """Whether the first step transposes the image, because its channels are first."""
    return any(operator.kind == "TRANSPOSE" and file.inputs[0] in operator.inputs for operator in file.operators)


def _preparation(file: File, read: Read, metadata: Metadata, overrides: Overrides) -> tuple[Preprocessing, str]:
    """The image preparation, and whether it was "given", is "in the file" or "assumed"."""
    graph, tensor = read.graph, file.tensors[file.inputs[0]]
    if overrides.plane not in (None, graph.input_shape[:2]):
        raise FileError(f"was made for {graph.input_shape[0]}x{graph.input_shape[1]}; train --from can override that")
    normal = metadata.mean is not None and metadata.std is not None and len(metadata.mean) in (1, graph.input_shape[2])
    said = "in the file"
    if tensor.grid and not (normal and tensor.number == "INT8"):
        usual = fed(graph, tensor.grid.scale, -tensor.grid.scale * tensor.grid.zero)
    elif normal:
        std = np.array(metadata.std)
        usual = fed(graph, 1 / std, -np.array(metadata.mean) / std)
    elif first := _quantized_first(file):
        usual, said = fed(graph, first.scale, -first.scale * first.zero), "assumed"
    else:
        pixels = None if overrides.says_numbers else told(read.done)
        usual, said = fed(graph, *FED[pixels or "-1..1"]), said if pixels else "assumed"
    if (end := end_of(graph)) is not None:
        usual = replace(usual, fit="stretch", crop=1.0)  # objects at the borders count
        known = decoding_at(end)
        if known and known.mean is not None:
            usual, said = known.preparation(usual), "in the file"
    return composed(overrides.over(usual), read.entry), "given" if overrides.says_numbers else said


def _quantized_first(file: File) -> Grid | None:
    """The quantization of the image, if a float file starts with one: its range reveals the image scaling."""
    readers = [operator for operator in file.operators if file.inputs[0] in operator.inputs]
    if len(readers) == 1 and readers[0].kind == "QUANTIZE" and readers[0].outputs[0] >= 0:
        grid = file.tensors[readers[0].outputs[0]].grid
        return grid if grid and grid.last == 255 else None
    return None
