"""The format of a delta, from outside: vectors made by hand, the reader for apps, OpenSSL."""

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zstandard")
pytest.importorskip("cryptography")

import deltas
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from smallcnn.delta.making import make_delta
from smallcnn.delta.updating import update
from smallcnn.errors import DeltaError

VECTORS = json.loads(deltas.VECTORS.read_text(encoding="utf-8"))
EACH = [
    (each["refuse"], *(bytes.fromhex(each[name]) for name in ("old", "new", "delta"))) for each in VECTORS["deltas"]
]
READER = Path(__file__).parents[2] / "examples" / "apply_delta.py"
# What the command says where the vectors' own words are not part of it.
SAID = {
    "another line": "an update of 'birds', not of 'flowers'", "another old file": "made for version 3",
    "another new file": "header says", "tampered with: its version": "tampered with",
    "tampered with: its payload": "payload is not the one", "reads beyond the old file": "reads beyond",
}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """The vectors' old file, and the keys of RFC 8032."""
    key = Ed25519PrivateKey.from_private_bytes(deltas.SECRET)
    pem = serialization.Encoding.PEM
    (tmp_path / "k.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "k.pub").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "old").write_bytes(deltas.OLD)
    return tmp_path


@pytest.fixture(scope="module")
def apply():
    """The reader that apps are given."""
    return runpy.run_path(str(READER))["apply"]


def test_the_vectors_are_those_that_the_tables_describe():
    """Frames of another zstd differ, so the files and what comes before the payload's hash are compared."""
    made = deltas.vectors()["deltas"]
    assert [each["refuse"] for each in made] == [reason for reason, *_ in EACH]
    for each, (_, old, new, content) in zip(made[:-1], EACH[:-1], strict=True):
        assert (each["old"], each["new"], each["delta"][:176]) == (old.hex(), new.hex(), content[:88].hex())


@pytest.mark.parametrize(("reason", "old", "new", "content"), EACH, ids=[str(reason) for reason, *_ in EACH])
def test_vectors(files, apply, reason, old, new, content):
    (files / "old").write_bytes(old)
    (files / "d").write_bytes(content)
    options = {"trust": files / "k.pub", "line": "flowers"}
    if reason is None:
        update(files / "old", files / "d", files / "new", **options)
        assert (files / "new").read_bytes() == new
        assert apply(old, content, deltas.PUBLIC, "flowers") == new
        return
    with pytest.raises(DeltaError, match=SAID.get(reason, reason)):
        update(files / "old", files / "d", files / "new", **options)
    assert not (files / "new").exists()
    with pytest.raises((ValueError, InvalidSignature)):
        apply(old, content, deltas.PUBLIC, "flowers")


def test_the_packed_vector_has_every_kind_of_block_and_is_small():
    """Kinds are the second and third bit of a block; 40 of 4000 bytes changed: less than half of the file."""
    from smallcnn.delta.packed import opened

    _, old, new, content = EACH[-1]
    _, (packed,) = opened(old)
    assert {block.head[0] >> 1 & 3 for block in packed.blocks if block.literals} == {0, 1, 2}
    assert content[288:292] != bytes(4), "a table"
    assert len(content) - 288 < len(new) / 2


def test_the_reader_reads_what_the_command_writes(files, apply):
    """Equal, changed, new and gone tensors; floats of every size and sign, zeros, infinities."""
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    wide = (rng.standard_normal((40, 9)) * 10.0 ** rng.integers(-30, 30, (40, 9))).astype(np.float32)
    wide[0, :4] = 0, -0.0, np.inf, -np.inf
    bytes_ = rng.integers(-127, 128, (50, 7), np.int8)
    old = save({"equal": wide, "wide": wide, "bytes": bytes_, "gone": wide[:3], "bias": np.arange(9, dtype=np.int32)})
    changed = {"wide": wide * np.float32(-1.001), "bytes": bytes_ + np.int8(1), "more": wide[:5] + 1}
    new = save({"equal": wide, "bias": np.arange(9, dtype=np.int32) * -70000, **changed}, {"facts": "new"})
    (files / "a").write_bytes(old)
    (files / "b").write_bytes(new)
    made = make_delta(files / "a", files / "b", files / "d", sign=files / "k.key", line="flowers")
    assert all(made.written.values()), "every kind of step"
    assert apply(old, (files / "d").read_bytes(), deltas.PUBLIC, "flowers") == new


def test_openssl_accepts_the_signature(files):
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no OpenSSL")
    (files / "b").write_bytes(deltas.NEW)
    make_delta(files / "old", files / "b", files / "d", sign=files / "k.key")
    content = (files / "d").read_bytes()
    (files / "message").write_bytes(content[:224])
    (files / "signature").write_bytes(content[224:288])
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", "k.pub", "-rawin", "-in", "message"]
    verify = [*command, "-sigfile", "signature"]
    assert subprocess.run(verify, cwd=files, capture_output=True, check=False, timeout=60).returncode == 0
    (files / "message").write_bytes(content[:223] + b"x")
    assert subprocess.run(verify, cwd=files, capture_output=True, check=False, timeout=60).returncode != 0
