"""The tensors of a network by name, `node.tensor` -> float32 array: initial values, and the check that a set fits."""

from collections.abc import Iterable, Mapping
from math import log, prod, sqrt

import numpy as np

from smallcnn.errors import SmallcnnError
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import code_predictors, detector, score_predictors
from smallcnn.ir.types import Number
from smallcnn.reference.numbers import stored

Weights = Mapping[str, np.ndarray]
_PREDICTOR = 0.03
_OBJECT = 0.01
_CONSTANT = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "slope": 0.25}


def initial_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Untrained weights, the same on every machine for one seed.

    Convolutions: normal with variance 2 / fan-in (He et al. 2015, arXiv 1502.01852, equation 10), where the fan-in of a
    group is its own. Depthwise ones start near the identity instead, 1 in the middle plus normal noise with standard
    deviation 0.2 everywhere: each filter sees a single channel, and a sequence of random ones blurs the input of the
    next (after the identity of Zagoruyko and Komodakis 2017, arXiv 1706.00388). Dense layers: normal with standard
    deviation 0.01. Biases 0; batch norm the identity; slopes of prelu 0.25, as in the paper by He et al., section 2.1.

    What gives a detector's codes and scores: normal with standard deviation 0.03, as in TensorFlow's released
    configurations, and biases of scores by which an anchor holds an object with a probability of 0.01 (Lin et al. 2017,
    arXiv 1708.02002, section 4.1): most hold none.
    """
    rng = np.random.default_rng(seed)
    scores = {one.conv.name for one in score_predictors(graph)}
    predictors = scores | {one.conv.name for one in code_predictors(graph)}
    values: dict[str, np.ndarray] = {}
    for node in graph:
        depthwise = graph.is_depthwise(node)
        for key, weight in graph.weights_of(node).items():
            if key == "weight" and isinstance(node.op, ops.Conv | ops.Dense):
                std = _PREDICTOR if node.name in predictors else _std(node.op, weight.shape, depthwise)
                value = std * rng.standard_normal(weight.shape, np.float32)
                if depthwise:
                    value[..., weight.shape[-2] // 2, weight.shape[-1] // 2] += 1
            else:
                value = np.full(weight.shape, _CONSTANT[key], np.float32)
                if key == "bias" and node.name in scores:
                    value += np.resize(_prior(graph), weight.shape)
            grid = weight.tensor.grid
            values[f"{node.name}.{key}"] = stored(weight.tensor.number, grid, value) if grid else value
    return values


def _prior(graph: Graph) -> np.ndarray:
    """The raw score of each class at which objects have `_OBJECT` as their probability: of all classes together for a
    softmax, of each for sigmoids; zeros where scores are probabilities already.
    """
    found = detector(graph)
    assert found is not None
    assert isinstance(found.op, ops.Detect)
    columns = graph[found.inputs[1]].shape[1]
    rare = log((1 - _OBJECT) / _OBJECT)
    prior = np.zeros(columns, np.float32)
    match found.op.score:
        case "sigmoid":
            prior[:] = -rare
            prior[: found.op.background] = rare
        case "softmax" if found.op.background:
            prior[0] = rare + log(columns - 1)
    return prior


def _std(op: ops.Conv | ops.Dense, shape: tuple[int, ...], depthwise: bool) -> float:
    if isinstance(op, ops.Dense):
        return 0.01
    return 0.2 if depthwise else sqrt(2 / prod(shape[1:]))


def check_weights(graph: Graph, weights: Weights, error: type[SmallcnnError]) -> None:
    """Raises `error` listing missing, surplus and misshapen tensors unless `weights` exactly match `graph`."""
    wanted = {name: weight.shape for name, weight in graph.weights.items()}
    numbers: dict[str, Number] = {name: weight.tensor.number for name, weight in graph.weights.items()}
    problems = []
    if missing := [name for name in wanted if name not in weights]:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if surplus := [name for name in weights if name not in wanted]:
        problems.append(f"{len(surplus)} surplus ({_some(map(shown, surplus))})")
    wrong = [name for name in wanted if name in weights and tuple(weights[name].shape) != wanted[name]]
    if wrong:
        shapes = (f"{name} is {tuple(weights[name].shape)}, not {wanted[name]}" for name in wrong)
        problems.append(f"{len(wrong)} of a different shape ({_some(shapes)})")
    if other := [name for name, number in numbers.items() if name in weights and not _holds(weights[name], number)]:
        kinds = (f"{name} is {weights[name].dtype}, not {numbers[name]}" for name in other)
        problems.append(f"{len(other)} of a different number type ({_some(kinds)})")
    if problems:
        raise error(f"weights do not fit {graph.name}: {'; '.join(problems)}")


def _holds(value: np.ndarray, number: Number) -> bool:
    """Whether an array has this number type; any floating-point type is float32, once it is stored."""
    kind = np.asarray(value).dtype
    return bool(np.issubdtype(kind, np.floating)) if number == "float32" else kind == number


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
