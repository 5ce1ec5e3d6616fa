"""`make_delta`: writes the delta from one file to the next, after it was applied and gave exactly the new file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.delta import coding, keys
from smallcnn.delta.layout import MOST_VERSION, Header, Kind, check_line, check_sizes
from smallcnn.delta.plan import smallest
from smallcnn.delta.reading import content
from smallcnn.errors import DeltaError, require
from smallcnn.system.files import check_apart, write

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Made:
    """A written delta: its header, its size in bytes, and the bytes of the new file that each kind of step writes."""

    header: Header
    delta_bytes: int
    written: Mapping[Kind, int]


def make_delta(
    old: Path | str,
    new: Path | str,
    out: Path | str,
    *,
    line: str | None = None,
    old_version: int = 1,
    new_version: int | None = None,
    sign: Path | str | None = None,
) -> Made:
    """Writes the delta that turns the file `old` into `new`, and signs it with the private key in the file `sign`.

    `line` names the models that replace one another (by default the stem of `old`), `old_version` and `new_version`
    (by default the next one) their versions. Any two files will do; model files and compiled files give small deltas.

    Raises DeltaError if the files are equal, of very different sizes, or the new one is empty, and for a bad line or
    version; FileError if a file cannot be read or written.
    """
    require("smallcnn delta", "compress", "zstandard", *(("cryptography",) if sign else ()))
    check_apart(out, old, new)
    line = Path(old).stem if line is None else line
    new_version = old_version + 1 if new_version is None else new_version
    check_line(line)
    if not 0 <= min(old_version, new_version) <= max(old_version, new_version) <= MOST_VERSION:
        raise DeltaError(f"versions are whole numbers from 0 to {MOST_VERSION:,}, not {old_version} and {new_version}")
    if old_version == new_version:
        raise DeltaError(f"both files are version {old_version}; a version stands for one file")
    key = keys.read_private(sign) if sign else None
    before, after = content(old), content(new)
    if before == after:
        raise DeltaError(f"{old} and {new} are equal: there is nothing to update")
    if not after:
        raise DeltaError(f"{new}: empty")
    check_sizes(len(before), len(after))
    chosen, payload = smallest(before, after)
    header = Header(
        old_version, new_version, len(before), len(after), hashlib.sha256(before).digest(),
        hashlib.sha256(after).digest(), hashlib.sha256(payload).digest(), len(payload), len(chosen), line,
    )  # fmt: skip
    header = _signed(header, key) if key else header
    if coding.decode(header, memoryview(payload), before) != after:
        raise AssertionError("the delta does not give the new file back")
    write(Path(out), header.to_bytes() + payload)
    written = {kind: sum(step.length for step in chosen if step.kind == kind) for kind in Kind}
    return Made(header, Path(out).stat().st_size, written)


def _signed(header: Header, key: "Ed25519PrivateKey") -> Header:
    header = replace(header, signer=key.public_key().public_bytes_raw())
    return replace(header, signature=key.sign(header.message()))
