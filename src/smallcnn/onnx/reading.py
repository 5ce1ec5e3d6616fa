"""Any small CNN's ONNX file -> an artifact: the file's operators become those of the graph, one by one.

Files of `writing` come back with their labels, preprocessing and facts. Other files take a float picture, channels
first or last, and do not say how it was prepared: ImageNet's mean and deviation are assumed, and its labels where there
are 1,000 classes. A softmax or sigmoid at the end is left out and becomes the artifact's ending.

What the graph has no operator for is an error that names it. The network is read for one picture at a time.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from smallcnn.artifact import FORMAT, Artifact
from smallcnn.checks import shown
from smallcnn.data import imagenet
from smallcnn.data.labels import checked_labels
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.ending import Ending, check_ending
from smallcnn.errors import FileError, GraphError
from smallcnn.files import check_regular
from smallcnn.graph import Graph, Node
from smallcnn.logits import to_logits, without_sigmoid
from smallcnn.onnx import views
from smallcnn.onnx.call import Call, Value
from smallcnn.onnx.constants import Budget, Constants, evaluate
from smallcnn.onnx.file import Array, Attributes, File, Picture, Step, number_type, parse, unpack
from smallcnn.onnx.network import MOST, Network
from smallcnn.onnx.operators import COMPUTING, MOVING, REFUSED
from smallcnn.onnx.simplify import simplify
from smallcnn.onnx.views import View
from smallcnn.ops import NO_PADDING

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training pictures, scaled to 0..1
_MOST_BYTES = 2**31 - 1
"""Largest message that the format's own encoding allows."""


@dataclass(frozen=True)
class Read:
    """What an ONNX file computes.

    `scale_and_shift`, float64 (C,) each: the picture enters as bytes, and the graph's input is byte * scale + shift;
    None if it enters as floats. `dropped`: what came after the logits, "Softmax", "LogSoftmax" or "Sigmoid". `ending`
    turns the graph's outputs into answers; one output through a sigmoid has become two logits.
    """

    graph: Graph
    weights: dict[str, Array]
    scale_and_shift: tuple[Array, Array] | None
    dropped: str | None
    ending: Ending


def read_onnx(path: Path | str, *, resolution: int | None = None) -> Artifact:
    """The network of an ONNX file. `resolution` is the side of the input where the file leaves it open.

    Raises FileError if the file is missing, damaged, or holds what the graph has no operator for.
    """
    path = Path(path)
    check_regular(path)
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise FileError(f"{path.stat().st_size:,} bytes; an ONNX file has at most {_MOST_BYTES:,}")
        file = unpack(parse(path.read_bytes()))
        return _artifact(file, path.stem, resolution)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error


def from_onnx(model: onnx.ModelProto, *, resolution: int | None = None) -> Read:
    """Graph and weights of a model in memory; see `read_onnx`."""
    file = unpack(model)
    return _read(file, file.name, resolution)


def usual_labels(classes: int) -> tuple[str, ...]:
    """ImageNet's where there are 1,000 classes, or 1,001 with TensorFlow's background; else numbers."""
    known = imagenet.labels()
    usual = {len(known): known, len(known) + 1: (imagenet.BACKGROUND, *known)}
    return usual.get(classes) or tuple(f"class {i}" for i in range(classes))


def _artifact(file: File, stem: str, resolution: int | None) -> Artifact:
    ours = "smallcnn.format" in file.metadata
    name = file.metadata.get("smallcnn.model", stem) if ours else stem
    read = _read(file, name, resolution)
    height, width, channels = read.graph.input_shape
    if ours:
        return _ours(file, read)
    if read.scale_and_shift is not None:
        scale, shift = read.scale_and_shift
        std = 1 / (255 * scale)
        preprocessing = Preprocessing((height, width), _tuple(-shift * std), _tuple(std))
    elif channels == 3:
        preprocessing = Preprocessing((height, width), _MEAN, _STD)
    else:
        preprocessing = Preprocessing((height, width), (0.5,) * channels, (0.5,) * channels)
    said = {"producer": file.producer, "opset": file.opset, "dropped": read.dropped}
    facts = {"onnx": said | {"pictures": "assumed" if read.scale_and_shift is None else "in the file"}}
    labels = usual_labels(read.graph.output_shape[0])
    return Artifact(read.graph, read.weights, labels, preprocessing, facts, read.ending)


def _ours(file: File, read: Read) -> Artifact:
    """With what `writing` put beside the network."""
    if file.metadata["smallcnn.format"] != FORMAT:
        raise FileError(f"written in format {shown(file.metadata['smallcnn.format'])}, this smallcnn reads {FORMAT!r}")
    try:
        labels, facts = (json.loads(file.metadata[f"smallcnn.{key}"]) for key in ("labels", "facts"))
        preprocessing = Preprocessing.from_json(file.metadata["smallcnn.preprocessing"])
    except KeyError as error:
        raise FileError(f"its metadata lack {error}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"its metadata are damaged: {error}") from error
    if not isinstance(facts, dict):
        raise FileError("its facts are not a JSON object")
    said, done = preprocessing.scale_and_shift(), read.scale_and_shift
    if done is None or not np.array_equal(said, np.array(done, np.float32)):
        raise FileError("was changed after smallcnn wrote it: it prepares pictures other than its metadata say")
    return Artifact(read.graph, read.weights, checked_labels(labels), preprocessing, facts, read.ending)


def _tuple(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _read(file: File, name: str, resolution: int | None) -> Read:
    stored = sum(value.size for value in file.constants.values())
    budget = Budget(8 * stored + 2**22)
    shape, order = _input(file, resolution)
    network = Network(shape, budget)
    pixels = file.picture.type == TensorProto.UINT8
    picture = View(network.input, views.plain(shape, order), pixels=pixels)
    values: dict[str, Value] = {**file.constants, file.picture.name: picture}
    last = {name: i for i, step in enumerate(file.steps) for name in step.inputs}
    for i, step in enumerate(file.steps):
        try:
            made = _run(step, values, network, file.opset)
        except (FileError, GraphError) as error:
            raise FileError(f"{shown(step.kind)} ({shown(step.name)}): {error}") from error
        for output, value in zip(step.outputs, made, strict=False):
            values[output] = value
        for source in step.inputs:
            if last[source] == i and source != file.output:
                values.pop(source, None)
    result = values.get(file.output)
    if not isinstance(result, View):
        raise FileError("its output does not depend on the picture")
    answer = _answer(network, result)
    simple = simplify(network, answer, name if name.isprintable() else "imported", pixels=pixels)
    normalisation = simple.scale_and_shift
    if pixels and normalisation is None:
        normalisation = (np.ones(shape[2]), np.zeros(shape[2]))
    return _ended(Read(simple.graph, simple.weights, normalisation, result.ended, "softmax"), file)


def _ended(read: Read, file: File) -> Read:
    """With the ending that the file says or shows, and the graph up to there."""
    if read.dropped is not None:  # by a softmax
        return read
    if "smallcnn.format" not in file.metadata:
        graph, weights, ending = to_logits(read.graph, read.weights)
        dropped = None if without_sigmoid(read.graph) is None else "Sigmoid"
        return replace(read, graph=graph, weights=weights, ending=ending, dropped=dropped)
    ending = check_ending(file.metadata.get("smallcnn.ending", "softmax"))
    if file.metadata.get("smallcnn.output") == "probabilities":
        without = without_sigmoid(read.graph) if ending == "sigmoid" else None
        if without is None:
            raise FileError(f"was changed after smallcnn wrote it: it does not end in {ending}")
        return replace(read, graph=without, ending=ending, dropped="Sigmoid")
    return replace(read, ending=ending)


def _run(step: Step, values: dict[str, Value], network: Network, opset: int) -> list[Value]:
    """The results of one operator, one for each of its outputs that is used."""
    if missing := [name for name in step.inputs if name and name not in values]:
        raise FileError(f"reads {shown(missing[0])}, which nothing before it makes")
    given = [values[name] if name else None for name in step.inputs]
    constants = [None if isinstance(value, View) else value for value in given]
    attributes = Attributes(step.attributes)
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
        made = [replace(value, label=step.name) if isinstance(value, View) else value for value in made]
    else:
        made = [*evaluate(Constants(step.kind, opset, constants, attributes, outputs, network.budget))]
    attributes.finish()
    if any(step.outputs[len(made) :]):
        raise FileError(f"has {outputs} outputs that are used; {len(made)} are known")
    return made


def _input(file: File, resolution: int | None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(H, W, C) and in which order the file has them, after the batch."""
    picture = file.picture
    if picture.type not in (*_FLOATS, TensorProto.UINT8):
        raise FileError(f"takes {number_type(picture.type)}; a picture is floats or bytes")
    if len(picture.sides) != 4:
        raise FileError(f"takes {len(picture.sides)} axes; a picture has (batch, channels, height, width)")
    first, last = picture.sides[1] in (1, 3), picture.sides[3] in (1, 3)
    if not (first or last):
        raise FileError(f"takes {_sides(picture)}; one or three channels must be first or last")
    if first and last:
        first = not _turned(file)
    order = (views.CHANNELS, views.HEIGHT, views.WIDTH) if first else (views.HEIGHT, views.WIDTH, views.CHANNELS)
    sides = dict(zip(order, picture.sides[1:], strict=True))
    if resolution is not None:
        fixed = [side for axis in (views.HEIGHT, views.WIDTH) if (side := sides[axis]) not in (None, resolution)]
        if fixed:
            raise FileError(f"was made for {_sides(picture)}, which is fixed; its resolution cannot be {resolution}")
    height, width = (sides[axis] or resolution for axis in (views.HEIGHT, views.WIDTH))
    if height is None or width is None:
        raise FileError(f"takes {_sides(picture)}, any height and width: give the resolution to read it for")
    if max(height, width) > MOST:
        raise FileError(f"takes {_sides(picture)}; no side may be above {MOST}")
    return (height, width, sides[views.CHANNELS] or 0), order


def _turned(file: File) -> bool:
    """Whether the first thing done to the picture is to put its channels first."""
    step = next((step for step in file.steps if file.picture.name in step.inputs), None)
    perm = step.attributes.get("perm") if step else None
    return step is not None and step.kind == "Transpose" and perm is not None and list(perm.ints) == [0, 3, 1, 2]


def _sides(picture: Picture) -> str:
    return "x".join(str(side or "?") for side in picture.sides)


def _answer(network: Network, result: View) -> Node:
    """The node of the logits: a vector."""
    if result.pixels or result.margins != NO_PADDING:
        raise FileError("gives back what it reads, or margins around it")
    view = network.ordered(result)
    plane = [atom for dim in view.dims for atom in dim if atom.axis != views.CHANNELS]
    if plane or sum(1 for dim in view.dims if dim) > 1:
        raise FileError(f"gives {shown(result.sizes)}, not one number per class")
    return network.vector(view).node
