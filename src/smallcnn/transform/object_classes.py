"""The scores of chosen classes of a detector, for a detector of these classes alone."""

from collections.abc import Mapping

import numpy as np

from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import score_predictors
from smallcnn.transform.undecided import decision


def score_weights(graph: Graph, classes: np.ndarray, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of a detector's score predictors for these `classes` (numbers) of objects, and the background."""
    background, found = int(decision(graph).background), {}
    chosen = np.concatenate([np.arange(background), np.asarray(classes, np.int64) + background])
    for predictor in score_predictors(graph):
        columns = predictor.rows.shape[1]
        for key in graph.weights_of(predictor.conv):
            value = weights[f"{predictor.conv.name}.{key}"]
            by_anchor = value.reshape(-1, columns, *value.shape[1:])[:, chosen]
            found[f"{predictor.conv.name}.{key}"] = np.ascontiguousarray(by_anchor.reshape(-1, *value.shape[1:]))
    return found
