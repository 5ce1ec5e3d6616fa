"""Metadata of model files: text by name. `store` has those of .safetensors; a converted file (.onnx, compiled) has

smallcnn.format          version of this layout, "2"
smallcnn.model           the network's name
smallcnn.mult_adds       Mult-Adds, for tools that report speed
smallcnn.layers          JSON object: Mult-Adds by node
smallcnn.task            JSON object, see `tasks.task`
smallcnn.preprocessing   JSON object, see `Preprocessing`
smallcnn.facts           JSON object: origin of the weights
smallcnn.results         JSON list of the outputs: name, shape, number type, and the grid of whole numbers
smallcnn.output          "logits", or "probabilities" if the file of a classifier applies the ending itself
smallcnn.integer         "true" if the network computes with whole numbers, which may round by a step; else absent
smallcnn.tuning          JSON object: which kernels of a compiled file were chosen by timing; absent if none was
smallcnn.probe           JSON object: exact outputs for `probe.probe_image` by name, flat, to verify an engine; of a
                         detector also what `sightings` adds

Format 1, which is read too, had classifiers with one output only: `smallcnn.labels`, a JSON list, and
`smallcnn.ending`, "softmax" if absent, instead of the task; no results; the probe's one answer as a list.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smallcnn.errors import FileError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir import checks
from smallcnn.ir.ops.detection import FIELDS
from smallcnn.ir.types import NUMBERS, Grid, Tensor, check_grid
from smallcnn.model import sightings
from smallcnn.model.facts import Facts
from smallcnn.model.tuning import Tuning
from smallcnn.tasks import kinds
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.ending import check_ending
from smallcnn.tasks.labels import checked_labels
from smallcnn.tasks.task import Task

if TYPE_CHECKING:
    from smallcnn.model.model import Model

FORMAT = "2"
FORMATS = ("1", FORMAT)
"""Formats of metadata that can be read."""


@dataclass(frozen=True)
class Description:
    """Parsed metadata of a converted file.

    `layers` is Mult-Adds by node, `results` what each output carries, `answer` the exact outputs for the probe image,
    `integer` whether the network computes with whole numbers.
    """

    name: str
    mult_adds: int
    layers: dict[str, int]
    task: Task
    preprocessing: Preprocessing
    facts: Facts
    results: dict[str, Tensor]
    outputs_probabilities: bool
    answer: dict[str, np.ndarray]
    integer: bool = False
    tuning: Tuning | None = None


def describe(
    model: "Model",
    *,
    probabilities: bool = False,
    answer: Mapping[str, np.ndarray] | None = None,
    tuning: Tuning | None = None,
) -> dict[str, str]:
    """The entries of a converted file; `answer` is its outputs for the probe image, if known, and `tuning` how its
    kernels were chosen.

    A classifier's file that applies the ending itself gives `probabilities`.
    """
    from smallcnn.cost.profile import profile

    cost = profile(model.graph)
    output = "probabilities" if probabilities else "logits"
    results = {output if probabilities else name: tensor for name, tensor in model.graph.results.items()}
    entries = {
        "smallcnn.format": FORMAT,
        "smallcnn.model": model.graph.name,
        "smallcnn.mult_adds": str(cost.mult_adds),
        "smallcnn.layers": json.dumps({layer.name: layer.mult_adds for layer in cost.layers if layer.mult_adds}),
        "smallcnn.task": kinds.to_json(model.task),
        "smallcnn.preprocessing": model.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(model.facts.to_json()),
        "smallcnn.results": json.dumps([_result(name, tensor) for name, tensor in results.items()]),
        "smallcnn.output": output,
    }
    if answer is not None:
        entries["smallcnn.probe"] = json.dumps({name: _flat(value) for name, value in answer.items()})
    if model.graph.integer:
        entries["smallcnn.integer"] = "true"
    if tuning is not None:
        entries["smallcnn.tuning"] = json.dumps(tuning.to_json())
    return entries


def _result(name: str, tensor: Tensor) -> dict[str, Any]:
    record = {"name": name, "shape": tensor.shape, "number": tensor.number}
    return record | ({"scale": tensor.grid.scale, "zero": tensor.grid.zero} if tensor.grid else {})


def _flat(value: np.ndarray) -> list[float]:
    if np.issubdtype(value.dtype, np.integer):
        return [int(number) for number in value.ravel()]
    return [float(f"{number:.9g}") for number in value.ravel()]


def parse(entries: Mapping[str, str]) -> Description:
    """The inverse of `describe`. Raises FileError if an entry is missing or damaged, or the format is another."""
    check_format(entries)
    task, facts = task_of(entries), facts_of(entries)
    results, answer = _results(entries, task)
    try:
        task.check(results)
    except GraphError as error:
        raise FileError(str(error)) from error
    for name, tensor in results.items():
        if answer[name].size != np.prod(tensor.shape):
            raise FileError(f"its answer to the probe image has {answer[name].size} numbers for {name} {tensor.shape}")
        if not np.isfinite(answer[name]).all():
            raise FileError("its answer to the probe image is not a finite number")
    name, output = text_of(entries, "model"), text_of(entries, "output")
    if not (name.isprintable() and len(name) <= 1000):
        raise FileError(f"its name is {checks.shown(name)}, not one line")
    if output not in ("logits", "probabilities"):
        raise FileError(f"its output is {checks.shown(output)}; there are logits and probabilities")
    mult_adds = _json(entries, "mult_adds")
    layers = _json(entries, "layers") if "smallcnn.layers" in entries else {}  # absent from older files
    if not _is_count(mult_adds):
        raise FileError(f"its mult_adds are {checks.shown(mult_adds)}")
    if not (isinstance(layers, dict) and all(map(_is_count, layers.values()))):
        raise FileError(f"its layers are {checks.shown(layers)}")
    return Description(
        name=name,
        mult_adds=mult_adds,
        layers=layers,
        task=task,
        preprocessing=Preprocessing.from_json(text_of(entries, "preprocessing")),
        facts=facts,
        results=results,
        outputs_probabilities=output == "probabilities",
        answer=answer | {name: answer[name].reshape(tensor.shape) for name, tensor in results.items()},
        integer="smallcnn.integer" in entries,
        tuning=Tuning.from_json(_json(entries, "tuning")) if "smallcnn.tuning" in entries else None,
    )


def _results(entries: Mapping[str, str], task: Task) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    probe = _json(entries, "probe")
    try:
        if entries["smallcnn.format"] == "1":
            name = text_of(entries, "output")
            return {name: Tensor((len(task.labels),))}, {name: np.array(_numbers(probe), np.float64)}
        records = _json(entries, "results")
        results = dict(map(_result_of, records))
        if len(results) != len(records):
            raise ValueError("two outputs of one name")
        return results, {
            name: np.array(_numbers(probe[name]), np.float64 if tensor.number == "float32" else tensor.number)
            for name, tensor in results.items()
        } | _sightings(probe)
    except (AttributeError, KeyError, ValueError, TypeError, OverflowError, GraphError) as error:
        message = str(error)[:150]
        raise FileError(f"its outputs and its answer to the probe image do not fit each other: {message}") from error


def _sightings(probe: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the answer of a detector says besides its outputs, see `model.sightings`."""
    if sightings.POSSIBLE not in probe:
        return {}
    made = {name: np.array(_numbers(probe[name]), np.float64) for name in sightings.EXTRA}
    made[sightings.POSSIBLE] = made[sightings.POSSIBLE].reshape(-1, FIELDS)
    if len(made[sightings.CERTAIN]) != len(made[sightings.POSSIBLE]) or made[sightings.TOLERANCE].shape != (1,):
        raise ValueError("its objects do not fit each other")
    return made


def _result_of(record: dict[str, Any]) -> tuple[str, Tensor]:
    """The inverse of `_result`."""
    shape, number, grid = tuple(record["shape"]), record["number"], None
    if not (isinstance(record["name"], str) and len(shape) <= 3 and all(map(checks.is_whole, shape))):
        raise ValueError(f"no name and shape in {checks.shown(record)}")
    checks.result(shape)
    checks.choice("number type", number, NUMBERS)
    if "scale" in record:
        grid = Grid(tuple(record["scale"]), tuple(record["zero"]))
        check_grid(number, grid, 1)
    return record["name"], Tensor(shape, number, grid)


def _numbers(values: Any) -> list[float]:
    """`values`, if they are a list of numbers; ValueError otherwise."""
    if not (isinstance(values, list) and all(type(value) in (int, float) for value in values)):
        raise ValueError(f"{checks.shown(values)} are not numbers")
    return values


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def task_of(entries: Mapping[str, str]) -> Task:
    """The task that metadata states, in any format. Raises FileError if it is missing or damaged."""
    if entries.get("smallcnn.format") != "1":
        return kinds.from_json(text_of(entries, "task"))
    return Classification(
        checked_labels(_json(entries, "labels")), check_ending(entries.get("smallcnn.ending", "softmax"))
    )


def facts_of(entries: Mapping[str, str]) -> Facts:
    """The facts that metadata states. Raises FileError if they are missing or not a JSON object."""
    facts = _json(entries, "facts")
    if not isinstance(facts, dict):
        raise FileError(f"its facts are {type(facts).__name__}, not a JSON object")
    return Facts.from_json(facts)


def check_format(entries: Mapping[str, str], formats: Sequence[str] = FORMATS) -> None:
    """Raises FileError unless the metadata is of one of these formats."""
    version = entries.get("smallcnn.format")
    if version is None:
        raise FileError("not smallcnn's: its metadata has no smallcnn.format")
    if version not in formats:
        known = f"{', '.join(map(repr, formats[:-1]))} and {formats[-1]!r}"
        raise FileError(f"written in format {checks.shown(version)}, this smallcnn reads {known}")


def text_of(entries: Mapping[str, str], key: str) -> str:
    """One entry. Raises FileError if it is missing."""
    if f"smallcnn.{key}" not in entries:
        raise FileError(f"not smallcnn's: its metadata has no smallcnn.{key}")
    return entries[f"smallcnn.{key}"]


def _json(entries: Mapping[str, str], key: str) -> Any:
    text = text_of(entries, key)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"its {key} are not JSON: {error}") from error
