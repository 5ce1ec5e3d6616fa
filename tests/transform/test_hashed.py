"""Hashed weights: the published hash, the definition, and that a tensor shows how it was hashed."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifacts import artifact
from smallcnn.errors import DataError, GraphError
from smallcnn.ir.builder import Builder
from smallcnn.transform.share.hashed import SEEDS, Hashing, hashed, hashing_of, xxh32
from smallcnn.transform.share.layers import shortened


def uint32(*numbers):
    return np.array(numbers, np.uint32)


def test_the_hash_is_xxh32():
    """XXH32 of "1234" (xxHash-Swift, xxHashTests.swift); of xxHash's sanity buffer (tests/sanity_test_vectors.h)."""
    digits = uint32(int.from_bytes(b"1234", "little"))
    assert xxh32(digits, uint32(0, 1, 0x7FFFFFFF)).tolist() == [0x01543429, 0xE17E2FA9, 0xF120E3F8]
    prime, state, buffer = 2_654_435_761, 2_654_435_761, []
    for _ in range(4):
        buffer.append(state >> 56)
        state = state * 11_400_714_785_074_694_797 % 2**64
    number = uint32(int.from_bytes(bytes(buffer), "little"))
    assert xxh32(number, uint32(0, prime)).tolist() == [0xA9DE7CE9, 0x2BAAFE83]


def test_the_definition_weight_by_weight():
    values = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    weight = Hashing(values=7, seed=5).expand(values, (4, 5, 3, 3))
    for place, one in enumerate(weight.ravel()):
        quotient, remainder = divmod(int(xxh32(uint32(place), uint32(5))[0]), 7)
        assert one == values[remainder] * (-1) ** quotient
    signs = Hashing(values=7, seed=5).places(10_000)[1]
    assert abs(signs.mean()) < 0.05  # five standard errors


def test_projection_is_least_squares():
    hashing, weight = Hashing(values=20, seed=3), np.random.default_rng(0).standard_normal((12, 30)).astype(np.float32)
    basis = np.stack([hashing.expand(row, (360,)) for row in np.eye(20, dtype=np.float32)], axis=1)
    best = np.linalg.lstsq(basis, weight.ravel(), rcond=None)[0]
    np.testing.assert_allclose(hashing.project(weight), best, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(200, 20_000), share=st.floats(0.08, 0.5), seed=st.integers(0, SEEDS - 1), short=st.booleans(),
    own=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(size=3552, share=0.24836393406104057, seed=28, short=True, own=28)  # a ninth divides more
def test_a_tensor_shows_how_it_is_hashed(size, share, seed, short, own):
    hashing = Hashing(values=int(size * share), seed=seed)
    values = np.random.default_rng(own).standard_normal(hashing.values).astype(np.float32)
    values = shortened(values) if short else values
    weight = hashing.expand(values, (size,))
    made, its = hashing_of(weight)
    assert made == hashing
    used = np.isin(np.arange(hashing.values), hashing.places(size)[0])
    assert np.array_equal(its[used], values[used])
    assert not its[~used].any()


def test_what_is_not_hashed():
    rng = np.random.default_rng(0)
    weight = Hashing(values=100, seed=0).expand(rng.standard_normal(100).astype(np.float32), (64, 20))
    assert hashing_of(weight)
    weight[9, 3] = -weight[9, 3]
    assert hashing_of(weight) is None
    assert hashing_of(rng.standard_normal((64, 20)).astype(np.float32)) is None
    assert hashing_of(rng.choice(rng.standard_normal(40), (64, 20)).astype(np.float32)) is None  # shared, not hashed
    assert hashing_of(np.zeros((64, 20), np.float32)) is None
    assert hashing_of(np.zeros((0, 3), np.float32)) is None


def network():
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 16, kernel=3, name="stem")
    x = g.conv_bn(x, 16, kernel=3, groups=16, name="depthwise")
    x = g.conv_bn(x, 32, kernel=3, name="body")
    return artifact(g.graph(g.dense(g.flatten(x, name="flat"), 10, name="head"), features=x, name="small"))


def test_the_layers_of_a_network():
    before = network()
    after = hashed(before.graph, before.weights, 0.125, seed=7)
    changed = {name for name, weight in after.items() if weight is not before.weights[name]}
    assert changed == {"body.conv.weight", "head.weight"}
    hashings = {name: hashing_of(after[name])[0] for name in changed}
    assert {name: hashing.values for name, hashing in hashings.items()} == {
        "body.conv.weight": 32 * 16 * 9 // 8, "head.weight": 10 * 32 * 64 // 8,
    }  # fmt: skip
    assert len({hashing.seed for hashing in hashings.values()}) == 2
    for name in changed:
        assert hashed(before.graph, after, 0.125, seed=8)[name] is after[name]
        assert np.square(after[name]).mean() == pytest.approx(np.square(before.weights[name]).mean(), rel=1e-5)


def test_errors():
    made = network()
    with pytest.raises(DataError, match=r"must be above 0 and at most 0.5, not 0.6"):
        hashed(made.graph, made.weights, 0.6)
    g = Builder(input=(4, 4, 3))
    small = artifact(g.graph(g.dense(g.global_pool(g.input, name="pool"), 4), features=g.input, name="tiny"))
    with pytest.raises(GraphError, match="tiny has no layer that is large enough to be hashed"):
        hashed(small.graph, small.weights, 0.25)
