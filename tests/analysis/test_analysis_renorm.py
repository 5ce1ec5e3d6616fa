"""Batch norm re-estimated, against statistics computed in float64 numpy along the definition of the network."""

import numpy as np
import pytest

from artifacts import artifact, colour_photos
from networks import tiny
from smallcnn.data.sources import Split, open_source
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError, GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import answer as run
from smallcnn.reference.floating import apply
from smallcnn.train.renorm import reestimate


def dense_norm():
    """Batch norm on planes, after an addition, and on vectors."""
    g = Builder(input=(10, 10, 3))
    x = g.conv_bn(g.input, 6, kernel=3, stride=2, name="stem")
    x = g.add(x, g.depthwise_bn(x, kernel=3, name="block"), name="sum")
    x = g.activation(g.batch_norm(x, epsilon=1e-3, name="sum_bn"), "relu", name="sum_act")
    y = g.dense(g.dropout(g.global_pool(x, name="pool"), 0.5, name="dropout"), 5, bias=False, name="hidden")
    y = g.activation(g.batch_norm(y, name="hidden_bn"), "relu", name="hidden_act")
    return g.graph(g.dense(y, 3, name="classifier"), features=x, name="dense_norm")


def statistics(model, batches):
    """{batch norm: (mean, variance)} over all batches, each normalised by its own, float64."""
    totals = {}
    for batch in batches:
        values = {}
        for node in model.graph:
            own = {key: np.float64(model.weights[f"{node.name}.{key}"]) for key in model.graph.weights_of(node)}
            inputs = [values[name] for name in node.inputs] or [np.float64(model.preprocessing.normalise(batch))]
            if isinstance(node.op, ops.BatchNorm):
                rows = inputs[0].reshape(-1, inputs[0].shape[-1])
                totals.setdefault(node.name, []).append(rows)
                own |= {"running_mean": rows.mean(0), "running_var": rows.var(0)}
            values[node.name] = apply(node.op, inputs, own)
    rows = {name: np.concatenate(parts) for name, parts in totals.items()}
    return {name: (values.mean(0), values.var(0)) for name, values in rows.items()}


def pictures(count, side=10, seed=0):
    rng = np.random.default_rng(seed)
    images = np.clip(rng.normal(rng.uniform(50, 200, (count, 1, 1, 3)), 40, (count, side, side, 3)), 0, 255)
    return Split(images.astype(np.uint8), Classes(rng.integers(0, 3, count)), [str(i) for i in range(count)])


@pytest.mark.parametrize("count", [2, 50, 64, 150])
@pytest.mark.parametrize("graph", [tiny(), dense_norm()], ids=lambda graph: graph.name)
def test_statistics_are_those_of_the_pictures(graph, count):
    model, split = artifact(graph), pictures(count)
    got = reestimate(model, split, workers=1)
    order = np.random.default_rng(0).permutation(count)
    prepared = np.stack([model.preprocessing.prepare(split.images[i]) for i in order])
    want = statistics(model, [prepared[start : start + 64] for start in range(0, count, 64)])
    assert len(want) == sum(isinstance(node.op, ops.BatchNorm) for node in graph)
    for name, (mean, variance) in want.items():
        # float32 rounding along the layers, of values of the size of a deviation
        slack = 1e-4 * np.sqrt(variance.max())
        np.testing.assert_allclose(got.weights[f"{name}.running_mean"], mean, rtol=0, atol=slack)
        np.testing.assert_allclose(got.weights[f"{name}.running_var"], variance, rtol=1e-3, atol=slack**2)
    assert got.facts["reestimated"] == {"pictures": count, "size": list(graph.input_shape[:2])}


def test_nothing_else_changes_and_the_answers_follow():
    model, split = artifact(dense_norm()), pictures(40)
    before = {name: value.copy() for name, value in model.weights.items()}
    got = reestimate(model, split, workers=1)
    for name, value in model.weights.items():
        np.testing.assert_array_equal(value, before[name])
        assert np.array_equal(got.weights[name], value) != ("running" in name)
    x = model.preprocessing.normalise(np.stack([model.preprocessing.prepare(image) for image in split.images]))
    values = run(got.graph, got.weights, x)
    assert not np.allclose(values, run(model.graph, model.weights, x))


def test_pictures_are_chosen_by_the_seed():
    model, split = artifact(), pictures(40, side=8)

    def first(**options):
        return reestimate(model, split, workers=1, **options).weights["stem.bn.running_mean"].tolist()

    assert first(most=10) == first(most=10)
    assert first(most=10) != first(most=10, seed=1)
    assert first(most=10) != first(most=11)


def test_undecodable_pictures_are_left_out(tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=4)
    (photos / "red" / "bad.png").write_bytes(b"no image")
    everything = open_source(photos).everything()
    assert reestimate(artifact(), everything, workers=1).facts["reestimated"]["pictures"] == 12
    bad = everything.subset([everything.names.index("red/bad.png")])
    with pytest.raises(DataError, match="at least two images"):
        reestimate(artifact(), bad, workers=1)


def test_one_picture_has_no_variance():
    with pytest.raises(DataError, match="at least two images"):
        reestimate(artifact(), pictures(1), workers=1)


def test_a_network_without_batch_norm():
    g = Builder(input=(4, 4, 3))
    graph = g.graph(g.dense(g.global_pool(g.input, name="pool"), 3, name="classifier"), features=g.input, name="plain")
    with pytest.raises(GraphError, match="plain has no batch norm"):
        reestimate(artifact(graph), pictures(4))
