"""The steps of quantizing: ranges, pixels, equalised channels, compensated rounding, corrected biases."""

from dataclasses import replace

import numpy as np
import pytest

import networks
from artifacts import artifact
from smallcnn.errors import DataError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.reference import floating, integer
from smallcnn.reference.numbers import stored
from smallcnn.transform.quantize import Settings, quantize, ready, worst
from smallcnn.transform.quantize.equalise import equalised
from smallcnn.transform.quantize.pixels import reading_pixels
from smallcnn.transform.quantize.ranges import choose_grid, grid_between, look, together
from smallcnn.transform.quantize.rounding import compensated
from smallcnn.transform.quantize.values import by_definition, walk


def pixels(shape, count=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


# ranges


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-5.0, -1.0), (2.0, 4.0), (0.0, 0.0)])
def test_a_grid_covers_its_range_and_zero(low, high):
    grid = grid_between(low, high)
    scale, zero = grid.scale[0], grid.zero[0]
    assert 0 <= zero <= 255
    assert scale * (0 - zero) <= min(low, 0) + scale / 2
    assert scale * (255 - zero) >= max(high, 0) - scale / 2
    assert zero == 0 or low < 0


def test_one_outlier_among_many_values_does_not_set_the_range():
    rng = np.random.default_rng(0)
    values = np.append(np.abs(rng.standard_normal(1_000_000)), 50.0).astype(np.float32)
    best, widest = choose_grid(look(values)), choose_grid(look(values), "min-max")

    def error(grid):
        back = grid.scale[0] * stored("uint8", grid, values).astype(np.float64)
        return np.square(back - values).mean()

    assert widest.scale[0] * 255 == pytest.approx(50, rel=1e-3)
    assert error(best) < error(widest) / 2
    for other in ("percentile", "mse"):
        assert error(best) <= error(choose_grid(look(values), other)) * (1 + 1e-3)


def test_values_that_pile_up_at_a_bound_keep_it():
    values = np.append(np.random.default_rng(0).uniform(0, 2, 100_000), np.full(20_000, 6.0)).astype(np.float32)
    assert choose_grid(look(values)).scale[0] * 255 == pytest.approx(6, rel=0.01)


def test_a_shared_range_covers_all_edges():
    few, many = look(np.full(10, -3, np.float32)), look(np.linspace(0, 5, 100_000, dtype=np.float32))
    grid = choose_grid(together([few, many]), "min-max")
    assert grid.scale[0] * 255 == pytest.approx(8)
    assert grid.zero[0] == round(3 * 255 / 8)


# pixels


def test_a_stored_pixel_is_the_pixel():
    graph, weights = ready(networks.tiny(), networks.random_weights(networks.tiny()))
    half = Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)
    moved, changed, preprocessing, grid = reading_pixels(graph, weights, half)
    images = pixels(graph.input_shape)
    assert (stored("uint8", grid, preprocessing.normalise(images)) == images).all()
    assert grid.zero == (128,)
    want = floating.answer(graph, weights, half.normalise(images))
    got = floating.answer(moved, changed, preprocessing.normalise(images))
    # only the padded border moves, by half a pixel
    assert np.abs(got - want).max() < 0.01 * np.abs(want).max()


def test_means_of_channels_go_into_a_layer_without_padding():
    g = Builder(input=(9, 9, 3))
    x = g.conv(g.input, 4, kernel=3, stride=2, padding=0, name="stem")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="unpadded")
    weights = networks.random_weights(graph)
    before = Preprocessing((9, 9), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    moved, changed, after, grid = reading_pixels(graph, weights, before)
    images = pixels(graph.input_shape)
    assert (stored("uint8", grid, after.normalise(images)) == images).all()
    np.testing.assert_allclose(
        floating.answer(moved, changed, after.normalise(images)),
        floating.answer(graph, weights, before.normalise(images)),
        rtol=0, atol=1e-5,
    )  # fmt: skip


def test_means_of_channels_stay_before_padding():
    graph, weights = ready(networks.tiny(), networks.random_weights(networks.tiny()))
    before = Preprocessing((8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    same, _, after, grid = reading_pixels(graph, weights, before)
    assert (same, after) == (graph, before)
    low, high = -0.485 / 0.229, (1 - 0.406) / 0.225
    assert grid.scale[0] == pytest.approx((high - low) / 255)


# equalised channels


def separable(function, seed=0):
    """A convolution, a depthwise one, a projection and a shuffled pair, with channels of very different range."""
    g = Builder(input=(8, 8, 3))
    x = g.activation(g.conv(g.input, 8, kernel=3, name="stem"), function, name="stem_act")
    x = g.activation(g.depthwise(x, kernel=3, name="depthwise"), function, name="depthwise_act")
    few, many = g.split(x, (2, 6), name="split")
    x = g.max_pool(g.shuffle(g.concat(many, few, name="join"), 2, name="shuffle"), kernel=2, stride=2, name="pool")
    x = g.conv(x, 4, name="project")
    graph = g.graph(g.dense(g.flatten(x, name="flat"), 3, name="classifier"), features=x, name="separable")
    weights = networks.random_weights(graph, seed)
    weights["stem.weight"] = weights["stem.weight"] * np.geomspace(0.01, 1, 8).astype(np.float32).reshape(-1, 1, 1, 1)
    return graph, weights


def peaks_of(graph, weights, images):
    values = {node.name: value for node, value in walk(graph, weights, images, by_definition)}
    acts = {"stem": "stem_act", "depthwise": "depthwise_act", "project": "project"}
    return {name: np.abs(values[act]).reshape(-1, graph[act].shape[-1]).max(0) for name, act in acts.items()}


@pytest.mark.parametrize("function", ["relu", "relu6", "leaky_relu"])
@pytest.mark.parametrize("seed", range(3))
def test_equalising_changes_no_answer(function, seed):
    graph, weights = separable(function, seed)
    images = networks.images(graph, 4, seed)
    changed, names = equalised(graph, weights, peaks_of(graph, weights, images))
    assert set(names) >= {"stem", "depthwise"}
    want = floating.answer(graph, weights, images)
    np.testing.assert_allclose(floating.answer(graph, changed, images), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_channels_before_a_depthwise_layer_take_half_the_range():
    graph, weights = separable("relu")
    images = networks.images(graph, 4)
    before = peaks_of(graph, weights, images)["stem"]
    changed, _ = equalised(graph, weights, peaks_of(graph, weights, images))
    after = peaks_of(graph, changed, images)["stem"]
    small = (before < before.max() / 2) & (before > before.max() / 64)  # the largest factor
    assert before[small].min() < before.max() / 4
    np.testing.assert_allclose(after[small], before.max() / 2, rtol=1e-4)
    assert (after <= before.max() * (1 + 1e-4)).all()


def test_channels_that_reach_six_keep_their_weights():
    graph, weights = separable("relu6")
    weights["stem.bias"][7] = 10
    images = networks.images(graph, 4)
    peaks = peaks_of(graph, weights, images)
    assert peaks["stem"][7] == 6
    changed, _ = equalised(graph, weights, peaks)
    np.testing.assert_array_equal(changed["stem.weight"][7], weights["stem.weight"][7])
    assert (changed["stem.weight"][0] != weights["stem.weight"][0]).any()


def test_nothing_is_equalised_across_a_sum_or_a_curve():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, name="a")
    y = g.conv(g.activation(x, "hard_swish", name="curve"), 4, name="b")
    x = g.add(x, y, name="sum")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="residual")
    weights = networks.random_weights(graph)
    changed, names = equalised(graph, weights, {"a": np.geomspace(1, 9, 4), "b": np.geomspace(1, 9, 4)})
    assert names == ()
    assert all((changed[name] == weights[name]).all() for name in weights)


# compensated rounding


def correlated(count, inputs, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3)) @ rng.standard_normal((3, inputs)) + 0.3 * rng.standard_normal(
        (count, inputs)
    )


def test_compensated_rounding_follows_the_layer_more_closely():
    rng = np.random.default_rng(1)
    weight, (source, fresh) = rng.standard_normal((16, 96)), np.split(correlated(3000, 96), [2500])
    scale = np.abs(weight).max(1) / 15  # 5 bits, so that rounding matters
    whole = compensated(ops.Dense(out=16), weight, scale, source)
    nearest = np.rint(weight / scale[:, None])
    assert whole.dtype == np.int8

    def noise(steps):
        error = fresh @ (steps * scale[:, None] - weight).T
        return (error - error.mean(0)).var()

    assert noise(whole) < noise(nearest) / 3


def test_independent_inputs_are_rounded_to_the_nearest():
    weight = np.random.default_rng(0).standard_normal((4, 3, 1, 1))
    scale = np.abs(weight).reshape(4, -1).max(1) / 127
    square = np.concatenate([np.eye(3), -np.eye(3)]).reshape(6, 1, 1, 3)  # no covariance
    whole = compensated(ops.Conv(out=4), weight, scale, np.tile(square, (50, 1, 1, 1)))
    np.testing.assert_array_equal(whole, np.rint(weight / scale.reshape(-1, 1, 1, 1)))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_windows_of_a_convolution_are_its_inputs(groups):
    """A grouped, padded, strided convolution: less noise in its result than rounding to the nearest."""
    rng = np.random.default_rng(0)
    op = ops.Conv(out=8, kernel=(3, 3), stride=(2, 1), padding=((1, 0), (0, 1)), groups=groups)
    source = correlated(8 * 100, 8).reshape(8, 10, 10, 8)
    source = source + np.roll(source, 1, 1) + np.roll(source, 1, 2)  # neighbours are alike
    weight = rng.standard_normal((8, 8 // groups, 3, 3))
    scale = np.abs(weight).reshape(8, -1).max(1) / 15
    steps = scale.reshape(-1, 1, 1, 1)

    def noise(whole):
        error = floating.apply(op, [source], {"weight": whole * steps - weight})
        return (error - error.mean((0, 1, 2))).var()

    assert noise(compensated(op, weight, scale, source)) < 0.8 * noise(np.rint(weight / steps))


# everything together


def model_of(graph, **how):
    half = Preprocessing(graph.input_shape[:2], (0.5,) * 3, (0.5,) * 3)
    return replace(artifact(graph, **how), preprocessing=half)


def test_each_step_brings_the_integers_closer():
    graph, weights = separable("relu")
    model = replace(model_of(graph), weights=weights)
    images = pixels(graph.input_shape, 32)
    want = floating.answer(graph, weights, model.preprocessing.normalise(images))

    def noise(**how):
        made, _ = quantize(model, images, Settings(**how))
        got = integer.run(made.graph, made.weights, made.preprocessing.normalise(images))["logits"]
        return np.square(got - want).mean() / np.square(want).mean()

    nothing = {"ranges": "min-max", "equalise": False, "compensate": False, "correct_bias": False}
    naive = noise(**nothing, per_tensor=True)
    plain = noise(**nothing)
    assert plain < naive
    assert noise() < plain / 4
    assert noise(**{**nothing, "equalise": True}) < plain


def test_corrected_biases_leave_no_shift():
    graph = networks.tiny()
    model = model_of(graph)
    images = pixels(graph.input_shape, 16)
    want = floating.answer(graph, model.weights, model.preprocessing.normalise(images))
    shifts = []
    for correct in (False, True):
        made, _ = quantize(model, images, Settings(correct_bias=correct, compensate=False))
        got = integer.run(made.graph, made.weights, made.preprocessing.normalise(images))["logits"]
        shifts.append(np.abs((got - want).mean(0)).max())
    assert shifts[1] < shifts[0] / 10


def test_the_report_names_the_layer_that_is_hard_to_round():
    graph = networks.tiny()
    weights = networks.random_weights(graph)
    weights["block.conv.weight"][:, :, 0, 0] *= 1000  # one weight of each filter takes the whole range
    made, report = quantize(replace(model_of(graph), weights=weights), pixels(graph.input_shape, 16), Settings())
    assert worst(report.layers)[0] == "block.conv"
    assert [layer.name for layer in report.layers] == ["input", "stem.act", "block.act", "pool", "classifier"]
    assert report.images == 16
    assert made.graph.integer


def test_nothing_to_learn_from_is_an_error():
    model = model_of(networks.tiny())
    with pytest.raises(DataError, match="no calibration images"):
        quantize(model, np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="all pixels of each are equal"):
        quantize(model, np.zeros((3, 8, 8, 3), np.uint8))
    made, _ = quantize(model, pixels((8, 8, 3)))
    with pytest.raises(GraphError, match="already quantized"):
        quantize(made, pixels((8, 8, 3)))
