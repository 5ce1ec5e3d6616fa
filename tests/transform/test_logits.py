"""A network read from a file, split into logits and ending; here with weights on a grid."""

import numpy as np

from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.reference.floating import answer
from smallcnn.transform.logits import to_logits


def test_one_logit_of_weights_on_a_grid_becomes_two_by_a_stored_zero():
    """sigmoid(z) of one output is the softmax of 0 and z: the first class has weights that stand for 0, stored as 7."""
    g = Builder(input=(1, 1, 2))
    z = g.dense(g.global_pool(g.input), 1, number="uint8", grid=Grid((0.5,), (7,)), name="fc")
    graph = g.graph(g.activation(z, "sigmoid"), features=g.input, name="one")
    weights = {"fc.weight": np.array([[9, 3]], np.uint8), "fc.bias": np.array([0.25], np.float32)}
    split, changed, ending = to_logits(graph, weights)
    assert ending == "softmax"
    np.testing.assert_array_equal(changed["fc.weight"], np.array([[7, 7], [9, 3]], np.uint8))
    image = np.array([[[[3.0, 1.0]]]])
    np.testing.assert_array_equal(answer(split, changed, image), [[0, 0.5 * (2 * 3 - 4 * 1) + 0.25]])
