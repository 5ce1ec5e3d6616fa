"""Training for sparsity: which scales the penalty is on, and what it adds to their gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from artifacts import LABELS, artifact, colour_photos  # noqa: E402
from smallcnn import zoo  # noqa: E402
from smallcnn.errors import DataError  # noqa: E402
from smallcnn.ir.builder import Builder  # noqa: E402
from smallcnn.model.store import load  # noqa: E402
from smallcnn.train.recipe import Recipe  # noqa: E402
from smallcnn.train.run import train  # noqa: E402
from smallcnn.transform.prune.scales import deciding  # noqa: E402


def network():
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 4, kernel=3, stride=2, name="stem")
    y = g.conv_bn(x, 8, kernel=1, activation="relu6", name="expand")
    y = g.depthwise_bn(y, kernel=3, activation="relu6", name="depthwise")
    x = g.add(x, g.conv_bn(y, 4, kernel=1, activation=None, name="project"), name="sum")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="residual")


def test_norms_whose_scale_the_next_one_makes_up_for_do_not_count():
    assert deciding(network()) == ("stem.bn", "depthwise.bn", "project.bn")
    found = deciding(zoo.mobilenet_v1(width=0.25))  # the pointwise ones are read by depthwise layers, but for the last
    assert found == (*(f"block{number}.depthwise.bn" for number in range(1, 14)), "block13.pointwise.bn")
    g = Builder(input=(8, 8, 3))  # read by another layer too
    x = g.conv_bn(g.input, 4, kernel=1, name="first")
    x = g.concat(x, g.depthwise_bn(x, kernel=3, name="depthwise"))
    assert deciding(g.graph(g.dense(g.global_pool(x), 3), features=x)) == ("first.bn", "depthwise.bn")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_moves_scales_by_the_rate_times_the_strength(tmp_path, accumulate):
    """One step of plain gradient descent, with the penalty and without."""
    graph = network()
    start = artifact(graph)
    assert start.labels == LABELS
    photos = colour_photos(tmp_path / "photos", per_class=10)
    recipe = Recipe(epochs=1, batch_size=24, accumulate=accumulate, lr=0.1, momentum=0.0, schedule="constant",
                    warmup_epochs=0, augment="none", weight_decay=0.0)  # fmt: skip
    ends = [
        load(train(start, photos, tmp_path / f"{sparsity}", recipe=recipe, sparsity=sparsity, compute="torch",
                   precision="float32", threads=1).last).weights
        for sparsity in (0.0, 0.5)
    ]  # fmt: skip
    counted = {"stem.bn.weight", "depthwise.bn.weight", "project.bn.weight"}
    for name in graph.weights:
        moved = ends[1][name] - ends[0][name]
        if name in counted:
            np.testing.assert_allclose(moved, -0.05 * np.sign(start.weights[name]), atol=1e-6, err_msg=name)
        elif not name.endswith(("running_mean", "running_var")):
            assert not moved.any(), name


def test_networks_without_such_norms_are_refused(tmp_path):
    photos = colour_photos(tmp_path / "photos")
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3, name="only")
    graph = g.graph(g.dense(g.global_pool(x), 3, name="out"), features=x, name="plain")
    with pytest.raises(DataError, match="plain has no batch norm"):
        train(artifact(graph), photos, tmp_path / "a", sparsity=1e-4)
    with pytest.raises(DataError, match="--sparsity is not for quantization-aware"):
        train(artifact(network()), photos, tmp_path / "b", sparsity=1e-4, quantize=True)
    with pytest.raises(DataError, match="sparsity must be at least 0"):
        Recipe(sparsity=-1.0)
