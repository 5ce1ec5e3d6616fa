"""Deltas of any two files give the new one back, and are as small as what changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("zstandard")

from safetensors.numpy import save

from smallcnn.delta.making import make_delta
from smallcnn.delta.updating import update

RNG = np.random.default_rng(0)
CODE, TEXT = RNG.bytes(60_000), b'{"mean": [0.485, 0.456, 0.406], "origin": "a run of yesterday"}'
WEIGHTS = RNG.normal(0, 0.1, 50_000).astype(np.float32)
TUNED = (WEIGHTS * (1 + RNG.normal(0, 2**-10, WEIGHTS.shape))).astype(np.float32)


@pytest.fixture
def share(tmp_path):
    """Bytes of the delta over bytes of the new file, once it has been applied and gives the new file back."""

    def call(old: bytes, new: bytes) -> float:
        for name, content in {"old": old, "new": new}.items():
            (tmp_path / name).write_bytes(content)
        made = make_delta(tmp_path / "old", tmp_path / "new", tmp_path / "d")
        update(tmp_path / "old", tmp_path / "d", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == new
        return made.delta_bytes / len(new)

    return call


def test_a_fine_tuned_network(share):
    """Changes of a 2^-10 of each weight leave about 10 of 24 bits, and sign and exponent: 14 to 16 of 32 are new."""
    assert 13 / 32 < share(save({"a.weight": WEIGHTS}), save({"a.weight": TUNED})) < 16 / 32


def test_only_the_head_changed(share):
    head = RNG.normal(0, 0.1, (5, 100)).astype(np.float32)
    old, new = ({"features": WEIGHTS, "head": value} for value in (head, head[::-1] * 2))
    assert share(save(old), save(new, {"facts": "epoch 2"})) < 0.02


def test_a_class_was_added(share):
    """Five rows change by little, the sixth is new: its 4 kB and a half of the rest."""
    head = RNG.normal(0, 0.1, (6, 1000)).astype(np.float32)
    old, new = save({"head": head[:5]}), save({"head": head * np.float32(1.001)})
    assert share(old, new) < (1 + 5 / 2) / 6


def test_changed_bytes(share):
    """A tenth of int8 weights one up, a tenth one down: 0.8 * 1 + 0.2 * 2 bits each in Huffman's code, of 8."""
    before = RNG.integers(-100, 100, 40_000, np.int8)
    after = before + RNG.choice(np.array([-1, 0, 1], np.int8), 40_000, p=[0.1, 0.8, 0.1])
    assert share(save({"a": before}), save({"a": after})) < 1.05 * 1.2 / 8


def test_equal_weights_under_other_names_and_in_another_order(share):
    parts = np.split(WEIGHTS, 5)
    old = save({f"block{i}": part for i, part in enumerate(parts)})
    new = save({f"stage{9 - i}": part for i, part in enumerate(parts)})
    assert share(old, new) < 0.01


def test_a_compiled_file(share):
    """Equal code around weights that changed, behind a text that grew: the weights cost as much as in a model file."""
    old = CODE + TEXT + bytes(-len(CODE + TEXT) % 64) + WEIGHTS.tobytes() + CODE[::-1]
    text = TEXT + b" and of today" * 9
    new = CODE + text + bytes(-len(CODE + text) % 64) + TUNED.tobytes() + CODE[::-1]
    assert share(old, new) < 0.5 * TUNED.nbytes / len(new) + 0.01


def test_a_real_compiled_file(share, tmp_path):
    pytest.importorskip("halide")
    from artifacts import artifact
    from smallcnn.compiler.compiling import compile_file
    from smallcnn.model.store import save as save_model

    files = []
    for seed in range(2):
        save_model(artifact(seed=seed), tmp_path / "m.safetensors")
        compile_file(tmp_path / "m.safetensors", tmp_path / f"{seed}.so")
        files.append((tmp_path / f"{seed}.so").read_bytes())
    weights = sum(value.nbytes for value in artifact().weights.values())
    assert share(*files) < (weights + 4000) / len(files[0]), "code is not in it"


def test_networks_with_nothing_in_common(share):
    assert share(save({"a": WEIGHTS}), save({"a": RNG.normal(0, 0.1, 50_000).astype(np.float32)})) < 1.01


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.tuples(st.integers(0, 3000), st.integers(0, 3000)).map(lambda cut: CODE[min(cut) : max(cut)]),
        st.tuples(st.integers(0, 900), st.integers(0, 900)).map(lambda cut: WEIGHTS[min(cut) : max(cut)].tobytes()),
        st.tuples(st.integers(0, 900), st.integers(0, 900)).map(lambda cut: TUNED[min(cut) : max(cut)].tobytes()),
        st.integers(0, 500).map(bytes),
    ),
    max_size=6,
).map(b"".join)


@given(PIECES, PIECES.filter(bool))
def test_any_two_files(old, new):
    from smallcnn.delta import coding
    from smallcnn.delta.layout import Header
    from smallcnn.delta.plan import steps

    chosen = steps(old, new)
    payload = coding.encode(chosen, old, new)
    header = Header(1, 2, len(old), len(new), b"", b"", b"", len(payload), len(chosen), "x")
    assert coding.decode(header, memoryview(payload), old) == new
