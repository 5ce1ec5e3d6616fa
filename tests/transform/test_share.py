"""Shared weights, zeros, codewords and thin layers: their definitions, and that errors are passed on."""

from dataclasses import replace

import numpy as np
import pytest

from artifacts import artifact
from networks import every_op
from smallcnn.cost.profile import profile
from smallcnn.engines.operators import Operators
from smallcnn.errors import DataError, GraphError
from smallcnn.ir.builder import Builder
from smallcnn.reference import floating
from smallcnn.transform.fold import fold
from smallcnn.transform.quantize.rounding import Inputs, passed_on
from smallcnn.transform.share.allot import Layer, Priced, allotted
from smallcnn.transform.share.codebook import codebook
from smallcnn.transform.share.layers import shortened
from smallcnn.transform.share.low_rank import Rank, low_rank, low_rank_graph
from smallcnn.transform.share.product import Codewords, quantize_products
from smallcnn.transform.share.scales import with_scales
from smallcnn.transform.share.sharing import Sharing, share
from smallcnn.transform.share.vectors import from_vectors, to_vectors


@pytest.fixture(scope="module")
def small():
    """A network with batch norm, and images."""
    g = Builder(input=(12, 12, 3))
    x = g.conv_bn(g.input, 16, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 16, kernel=3, groups=16, name="depthwise")
    x = g.conv_bn(x, 48, kernel=1, name="pointwise")
    x = g.conv_bn(x, 32, kernel=1, name="project")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 5, name="head"), features=x, name="small")
    images = np.random.default_rng(1).integers(256, size=(40, 12, 12, 3)).astype(np.uint8)
    return artifact(graph), images


def engine(graph):
    return Operators(graph, 1)


def outputs(model, images):
    (found,) = floating.run(model.graph, model.weights, model.preprocessing.normalise(images)).values()
    return found


# --- codebooks ---


def test_k_means_is_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    weights = np.random.default_rng(0).standard_normal(2000)
    start = np.linspace(weights.min(), weights.max(), 12)[:, None]
    judge = cluster.KMeans(12, init=start, n_init=1, max_iter=50, tol=0).fit(weights[:, None])
    found = codebook(weights, 12)
    np.testing.assert_allclose(found.values, np.sort(judge.cluster_centers_.ravel()), atol=1e-6)
    shares = np.bincount(judge.labels_) / len(weights)
    np.testing.assert_allclose(np.sort(2.0**-found.bits), np.sort(shares), atol=2 / len(weights))
    nearest = found.nearest(weights)
    assert np.abs(weights - nearest).max() <= np.abs(weights[:, None] - found.values).min(1).max()


def test_important_weights_get_the_values():
    weights = np.random.default_rng(0).uniform(-1, 1, 4000)
    importance = np.where(weights > 0, 100.0, 1.0)
    found = codebook(weights, 16, importance=importance)
    plain = codebook(weights, 16)
    errors = [importance * (book.nearest(weights) - weights) ** 2 for book in (found, plain)]
    assert errors[0].sum() < errors[1].sum()


def test_a_price_gives_fewer_bits_for_the_same_error():
    """Entropy-constrained values against k-means: less of error + price * bits, the bits counted by their shares."""
    weights = np.random.default_rng(0).laplace(size=20_000)
    price = 0.02
    found, plain = codebook(weights, 64, price=price), codebook(weights, 64)

    def cost(values):
        _, counts = np.unique(values, return_counts=True)
        return ((values - weights) ** 2).mean() - price * (counts / weights.size * np.log2(counts / weights.size)).sum()

    priced = found.nearest(weights, np.full(weights.shape, price))
    assert cost(priced) < cost(plain.nearest(weights))
    assert len(found.values) < len(plain.values)


# --- errors passed on ---


@pytest.mark.parametrize("together", [1, 4])
def test_errors_are_passed_on_to_correlated_inputs(together):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 8)) @ rng.standard_normal((8, 24)) + 0.1 * rng.standard_normal((4000, 24))
    weight = rng.standard_normal((1, 30, 24))
    inputs = Inputs((x.T @ x / len(x))[None], len(x))
    coarse = passed_on(weight, inputs, lambda values, *_: np.rint(values), together)
    assert (coarse == np.rint(coarse)).all()

    def error(rounded):
        return ((x @ (rounded - weight)[0].T) ** 2).mean()

    assert error(coarse) < 0.4 * error(np.rint(weight))


# --- whole networks ---


@pytest.mark.parametrize(("bits", "zeros"), [(4, 0.0), (3, 0.5), (None, 0.7)])
def test_shared_values_and_zeros(small, bits, zeros):
    model, images = small
    made, changes = share(model, images, Sharing(bits=bits, zeros=zeros), operators=engine)
    assert [change.name for change in changes] == [
        "stem.conv",
        "depthwise.conv",
        "pointwise.conv",
        "project.conv",
        "head",
    ]
    for change in changes:
        weight = made.weights[f"{change.name}.weight"]
        most = 2**bits if bits and weight[0].size > 32 else min(256, weight.size)
        assert change.values == len(np.unique(weight)) <= (most if bits else weight.size)
        assert change.zeros == (weight == 0).mean() >= int(zeros * weight.size) / weight.size
    folded, weights = fold(model.graph, model.weights)
    plain = dict(weights)
    for change in changes:
        value = weights[f"{change.name}.weight"]
        kept = np.abs(value) > (np.quantile(np.abs(value), zeros) if zeros else -1)
        words = 2 ** (bits if value[0].size > 32 else 8) - bool(zeros) if bits else 0
        book = codebook(value[kept], words) if bits else None
        plain[f"{change.name}.weight"] = np.where(kept, book.nearest(value) if book else value, 0)
    exact = outputs(model, images)
    (naive,) = floating.run(folded, plain, model.preprocessing.normalise(images)).values()
    assert ((outputs(made, images) - exact) ** 2).mean() < 0.5 * ((naive - exact) ** 2).mean()


# --- filters of different size ---


@pytest.fixture(scope="module")
def uneven():
    """The small network with filters a thousand times apart before the relu, which readers make up for."""
    g = Builder(input=(12, 12, 3))
    x = g.activation(g.conv(g.input, 24, kernel=3, name="stem"), "relu")
    x = g.activation(g.conv(x, 64, kernel=1, name="even"), "relu")
    x = g.activation(g.conv(x, 24, kernel=1, name="uneven"), "relu")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 5, name="head"), features=x, name="uneven")
    made = artifact(graph)
    sizes, weights = np.logspace(-1.5, 1.5, 24).astype(np.float32), dict(made.weights)
    weights["uneven.weight"] = weights["uneven.weight"] * sizes[:, None, None, None]
    weights["uneven.bias"] = weights["uneven.bias"] * sizes
    weights["head.weight"] = weights["head.weight"] / sizes
    images = np.random.default_rng(1).integers(256, size=(40, 12, 12, 3)).astype(np.uint8)
    return replace(made, weights=weights), images


def test_filters_get_one_size_where_that_pays(uneven):
    model, _ = uneven
    graph, weights = with_scales(model.graph, model.weights)
    assert [node.name for node in graph if node.op.kind == "batch_norm"] == ["uneven_scale"]
    largest = np.abs(weights["uneven.weight"]).reshape(24, -1).max(1)
    assert largest.max() <= 1 + 1e-6
    assert largest.min() > 2**-0.25 - 1e-6
    folded, found = fold(graph, weights)
    assert folded == model.graph
    for name, value in model.weights.items():
        np.testing.assert_allclose(found[name], value, rtol=2**-22)  # a division and a product, each rounded
    dead = dict(model.weights)
    dead["uneven.weight"] = dead["uneven.weight"] * (np.arange(24) > 1).reshape(-1, 1, 1, 1)
    _, weights = with_scales(model.graph, dead)
    assert all(np.isfinite(value).all() for value in weights.values())


def test_filters_of_different_size_share_values(uneven):
    model, images = uneven
    exact = outputs(model, images)
    made, changes = share(model, images, Sharing(bits=4), operators=engine)
    assert all(len(np.unique(made.weights[f"{change.name}.weight"])) <= 256 for change in changes)
    assert (made.graph["uneven"].op.bias, made.graph["even"].op.bias) == (False, True)  # one bias for each output
    error = ((outputs(made, images) - exact) ** 2).mean() / exact.var()
    plain = dict(model.weights)
    value = plain["uneven.weight"]
    plain["uneven.weight"] = codebook(value, 16).nearest(value).astype(np.float32)
    coarse = ((outputs(replace(model, weights=plain), images) - exact) ** 2).mean() / exact.var()
    assert error < 0.1 * coarse
    alone, _ = share(model, images, Sharing(zeros=0.5), operators=engine)
    assert alone.graph == model.graph  # zeros alone need no scales


def test_a_budget_is_kept_and_more_bytes_are_better(small):
    model, images = small
    exact, errors = outputs(model, images), []
    for budget in (2600, 1500):
        made, _ = share(model, images, Sharing(budget=budget), operators=engine)
        bits = 0.0
        for name, value in made.weights.items():
            if name.endswith("weight"):
                shares = np.unique(value, return_counts=True)[1] / value.size
                bits -= value.size * (shares * np.log2(shares)).sum() - 32 * len(shares)
        assert 0.7 * budget < bits / 8 + 3 * (16 + 16 + 48 + 32 + 5) < 1.1 * budget
        errors.append(((outputs(made, images) - exact) ** 2).mean())
    assert errors[0] < errors[1]


def test_bits_go_where_errors_matter():
    weight = np.random.default_rng(0).standard_normal((64, 64))
    layers = {"low": Layer(weight, np.full(weight.shape, 1e-6)), "high": Layer(weight, np.full(weight.shape, 16e-6))}
    price = allotted(layers, 64 * 64)  # a byte for two weights
    low, high = (float((2.0**-book.bits * book.bits).sum()) for book in (Priced(layers[n], price).book for n in layers))
    assert low + high == pytest.approx(8, abs=0.5)
    assert high - low == pytest.approx(2, abs=0.3)  # sixteen times the weight: four times finer steps
    with pytest.raises(DataError, match="5 bytes are too few"):
        allotted(layers, 5)


def test_codewords(small):
    model, images = small
    made, changes = quantize_products(model, images, Codewords(words=3, length=4), operators=engine)
    assert [change.name for change in changes] == ["pointwise.conv", "project.conv"]
    vectors = to_vectors(made.weights["pointwise.conv.weight"], 4)
    assert all(len(np.unique(vectors[:, at], axis=0)) <= 3 for at in range(4))
    finer, _ = quantize_products(model, images, Codewords(words=6, length=4), operators=engine)
    exact = outputs(model, images)
    assert ((outputs(finer, images) - exact) ** 2).mean() < ((outputs(made, images) - exact) ** 2).mean()
    with pytest.raises(GraphError, match="small has no layer that 256 codewords make smaller"):
        quantize_products(model, images, Codewords(words=256, length=4), operators=engine)


def test_vectors_are_input_channels():
    weight = np.arange(2 * 6 * 3 * 3).reshape(2, 6, 3, 3)
    vectors = to_vectors(weight, 3)
    assert vectors.shape == (18, 2, 3)
    assert vectors[4, 1].tolist() == weight[0, 3:, 1, 1].tolist()
    assert (from_vectors(vectors, weight.shape) == weight).all()


def test_low_rank(small):
    """No weights of that rank have nearer results: the error is what singular values are left (Eckart and Young)."""
    model, images = small
    made = low_rank(model, images, 0.5, operators=engine)
    before, after = profile(model.graph).mult_adds, profile(made.graph).mult_adds
    assert after < before
    assert profile(low_rank_graph(model.graph, 0.5)).mult_adds == after
    rank = 16 * 48 // 2 // 64
    assert made.weights["pointwise.conv.weight"].shape == (rank, 16, 1, 1)
    assert made.weights["pointwise.conv_second.weight"].shape == (48, rank, 1, 1)
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((500, 16)) @ rng.standard_normal((16, 16))
    weight = rng.standard_normal((48, 16))
    found = Rank(rank)(weight, Inputs((inputs.T @ inputs / 500)[None], 500, doubt=(0, 0)))
    assert np.linalg.matrix_rank(found) == rank
    results = inputs @ weight.T
    singular = np.linalg.svd(results, compute_uv=False)
    np.testing.assert_allclose(((inputs @ found.T - results) ** 2).sum(), (singular[rank:] ** 2).sum())
    u, s, v = np.linalg.svd(weight)
    np.testing.assert_allclose(Rank(rank)(weight, None), (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-9)
    with pytest.raises(GraphError, match="has no dense layer or 1x1 convolution"):
        low_rank(model, images, 1e-6)


def test_low_rank_of_low_rank_changes_nothing(small):
    model, images = small
    thin = dict(model.weights)
    thin["pointwise.conv.weight"] = np.ones((48, 16, 1, 1), np.float32)  # of rank 1
    thin["project.conv.weight"] = np.ones((32, 48, 1, 1), np.float32)
    thin["head.weight"] = np.ones((5, 32), np.float32)
    model = replace(model, weights=thin)
    made = low_rank(model, images, 0.5, operators=engine)
    np.testing.assert_allclose(outputs(made, images), outputs(model, images), rtol=1e-4, atol=1e-4)


def test_every_operator_survives():
    model = artifact(every_op())
    images = np.random.default_rng(0).integers(256, size=(8, 9, 8, 3)).astype(np.uint8)
    made, _ = share(model, images, Sharing(bits=8), operators=engine)
    exact = outputs(model, images)
    assert ((outputs(made, images) - exact) ** 2).mean() < 0.01 * exact.var()


def test_short_biases():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    short = shortened(values)
    np.testing.assert_allclose(short, values, rtol=2**-11)
    assert not (short.view(np.uint32) & 0x1FFF).any()


@pytest.mark.parametrize("text", ["", "5", "bit", "0bit", "9bit", "-5bit", "5.5bit", "500", "0kB", "5 bytes"])
def test_text_that_asks_for_no_sharing(text):
    with pytest.raises(DataError):
        Sharing.parse(text)


def test_a_budget_of_bytes_takes_no_zeros():
    with pytest.raises(DataError, match="with zeros, give bits"):
        Sharing.parse("500kB", zeros=0.5)


def test_text_that_asks_for_sharing():
    assert Sharing.parse("5bit") == Sharing(bits=5)
    assert Sharing.parse("4bits", zeros=0.5) == Sharing(bits=4, zeros=0.5)
    assert Sharing.parse("0.5MB") == Sharing.parse("500kB") == Sharing(budget=500_000)
    assert Codewords.parse("64,4") == Codewords(words=64, length=4)
    for text in ("64", "64,", "0,4", "300,4", "64,1", "a,b"):
        with pytest.raises(DataError):
            Codewords.parse(text)
