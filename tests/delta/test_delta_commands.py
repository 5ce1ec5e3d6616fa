"""`smallcnn keygen`, `delta` and `update`: what they print, and one line for each mistake."""

import json
import stat
import sys

import numpy as np
import pytest

pytest.importorskip("zstandard")
pytest.importorskip("cryptography")

from safetensors.numpy import save

WEIGHTS = np.linspace(-1, 1, 20_000, dtype=np.float32)


@pytest.fixture
def files(tmp_path, monkeypatch, smallcnn):
    """Three versions of a file, two pairs of keys, and signed deltas from each version to the next."""
    monkeypatch.chdir(tmp_path)
    for version in (3, 4, 5):
        (tmp_path / f"{version}.safetensors").write_bytes(save({"a": WEIGHTS * np.float32(version)}))
    for name in ("mine", "other"):
        assert smallcnn("keygen", "--out", name)[0] == 0
    for version in (3, 4):
        made = ["delta", f"{version}.safetensors", f"{version + 1}.safetensors", "--out", f"{version + 1}.delta"]
        assert smallcnn(*made, "--line", "birds", "--from-version", version, "--sign", "mine.key")[0] == 0
    return tmp_path


def test_keys(files, smallcnn, refused):
    code, out, _ = smallcnn("keygen", "--out", "new/third", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["private_key"], said["public_key"]) == ("new/third.key", "new/third.pub")
    assert len(bytes.fromhex(said["public_key_hex"])) == 32
    if sys.platform != "win32":
        assert stat.S_IMODE((files / "new/third.key").stat().st_mode) == 0o600
    secret = (files / "mine.key").read_bytes()
    assert refused("keygen", "--out", "mine") == "mine.key: exists already; keys are never overwritten"
    assert (files / "mine.key").read_bytes() == secret


def test_an_update_replaces_no_model(files, refused):
    old = (files / "3.safetensors").read_bytes()
    call = ("delta", "3.safetensors", "4.safetensors", "--out")
    assert refused(*call, "3.safetensors") == "3.safetensors: an update's name ends in .delta"
    assert (files / "3.safetensors").read_bytes() == old
    (files / "4.delta").rename(files / "old.delta")
    assert "would replace the file" in refused("delta", "old.delta", "4.safetensors", "--out", "old.delta")


def test_an_update(files, smallcnn):
    code, out, _ = smallcnn(
        "delta", "3.safetensors", "5.safetensors", "--out", "x.delta", "--from-version", 3, "--to-version", 5, "--json"
    )
    said = json.loads(out)
    size = (files / "5.safetensors").stat().st_size
    assert code == 0
    assert (said["line"], said["from_version"], said["to_version"], said["signer"]) == ("3", 3, 5, None)
    assert said["delta_bytes"] == (files / "x.delta").stat().st_size
    assert sum(said["steps"].values()) == said["new_bytes"] == size
    code, out, err = smallcnn("update", "3.safetensors", "x.delta", "--out", "3.safetensors", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["sha256"] == said["new_sha256"]
    assert (files / "3.safetensors").read_bytes() == (files / "5.safetensors").read_bytes()


def test_a_signature_that_nobody_vouches_for(files, smallcnn):
    code, _, err = smallcnn("update", "3.safetensors", "4.delta", "--out", "out.safetensors")
    assert code == 0
    assert "give --trust" in err


MISTAKES = {
    "wrong key": (["3.safetensors", "4.delta", "--trust", "other.pub"], "4.delta: signed with another key"),
    "unsigned": (["3.safetensors", "x.delta", "--trust", "mine.pub"], "x.delta: not signed"),
    "wrong base": (["3.safetensors", "5.delta", "--trust", "mine.pub"], "5.delta: made for version 4 of 'birds'"),
    "old version": (["4.safetensors", "back.delta", "--trust", "mine.pub"], "back.delta: leads back from"),
    "wrong line": (["3.safetensors", "4.delta", "--line", "bees"], "4.delta: an update of 'birds', not of 'bees'"),
    "no delta": (["3.safetensors", "4.safetensors"], "4.safetensors: not a delta, or cut short"),
    "no file": (["3.safetensors", "9.delta"], "9.delta: no such file"),
    "no old file": (["9.safetensors", "4.delta"], "9.safetensors: no such file"),
    "a folder": ([".", "4.delta"], ".: a folder, not a file"),
    "a private key": (["3.safetensors", "4.delta", "--trust", "mine.key"], "mine.key: a private key; give the public"),
    "no key": (["3.safetensors", "4.delta", "--trust", "3.safetensors"], "3.safetensors: not a public key"),
}  # fmt: skip


def test_one_line_for_each_mistake(files, smallcnn, refused):
    assert smallcnn("delta", "3.safetensors", "4.safetensors", "--out", "x.delta")[0] == 0
    back = ["delta", "4.safetensors", "3.safetensors", "--out", "back.delta", "--sign", "mine.key"]
    assert smallcnn(*back, "--from-version", 4, "--to-version", 3)[0] == 0
    for args, said in MISTAKES.values():
        assert refused("update", *args, "--out", "out.safetensors").startswith(said)
        assert not (files / "out.safetensors").exists()
    code, _, _ = smallcnn("update", "4.safetensors", "back.delta", "--out", "out.safetensors", "--allow-rollback")
    assert code == 0
    assert (files / "out.safetensors").read_bytes() == (files / "3.safetensors").read_bytes()


def test_mistakes_in_making(files, refused):
    make = ["delta", "3.safetensors", "4.safetensors", "--out", "y.delta"]
    assert "sign with the private one" in refused(*make, "--sign", "mine.pub")
    assert "a version stands for one file" in refused(*make, "--to-version", 1)
    assert "1 to 64 bytes" in refused(*make, "--line", "x" * 65)
    assert "nothing to update" in refused("delta", "3.safetensors", "3.safetensors", "--out", "y.delta")
    (files / "empty").touch()
    assert "empty" in refused("delta", "3.safetensors", "empty", "--out", "y.delta")
    (files / "large").write_bytes(bytes(17 << 20))
    assert "four times as many" in refused("delta", "empty", "large", "--out", "y.delta")
    assert not (files / "y.delta").exists()


@pytest.mark.parametrize("module", ["zstandard", "cryptography"])
def test_without_the_extra(files, refused, monkeypatch, module):
    from smallcnn import errors

    found = errors.importlib.util.find_spec
    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda name: None if name == module else found(name))
    line = refused("update", "3.safetensors", "4.delta", "--out", "o", "--trust", "mine.pub")
    assert line.endswith("needs the 'compress' extra: pip install 'smallcnn[compress]'")
