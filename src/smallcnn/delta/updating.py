"""`update`: checks a delta, applies it, checks the result and only then puts it in the old file's place."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from smallcnn.delta import coding, keys
from smallcnn.delta.layout import HEADER_BYTES, Header, read_header
from smallcnn.delta.reading import content
from smallcnn.errors import DeltaError, WriteError, require
from smallcnn.system.files import atomic, make_folder, remove_leftovers


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did: the header of its delta, and whether the old file already was the new one."""

    header: Header
    already: bool


def delta_header(path: Path | str, *, trust: Path | str | None = None) -> Header:
    """The header of a delta, whose signature is right if it has one.

    With `trust`, the file of a public key, it must be signed with the private key to it. Raises DeltaError, or
    FileError if a file cannot be read.
    """
    path = Path(path)
    try:
        header = read_header(content(path, HEADER_BYTES), path.stat().st_size)
        if header.signed:
            require("the signature of a delta", "compress", "cryptography")
            keys.check_signature(header.signer, header.signature, header.message())
        if trust is None:
            return header
        if not header.signed:
            raise DeltaError(f"not signed; only what the key in {trust} has signed is accepted")
        if header.signer != keys.read_public(trust):
            raise DeltaError(f"signed with another key ({header.signer.hex()[:16]}...) than the one in {trust}")
    except DeltaError as error:
        raise DeltaError(f"{path}: {error}") from error
    return header


def update(
    old: Path | str,
    delta: Path | str,
    out: Path | str,
    *,
    trust: Path | str | None = None,
    line: str | None = None,
    allow_rollback: bool = False,
) -> Updated:
    """Writes the file that `delta` makes of `old` to `out`, which may be `old` itself.

    The delta, its signature and the old file are checked first, the new file before it takes its place. Whatever fails,
    and whenever the process ends, the file at `out` is the old or the new one. Repeating an update changes nothing.

    `trust` is the file of the public key that must have signed, `line` the only model line to accept. A delta to a
    lower version is refused unless `allow_rollback`. Raises DeltaError, or FileError if a file cannot be read or
    written.
    """
    require("smallcnn update", "compress", "zstandard", *(("cryptography",) if trust else ()))
    old, delta, out = Path(old), Path(delta), Path(out)
    header = delta_header(delta, trust=trust)
    try:
        _check_wanted(header, line, allow_rollback)
        before = content(old)
        digest = hashlib.sha256(before).digest()
        already = digest == header.new_hash
        if already and out.exists() and out.samefile(old):
            return Updated(header, already)
        after = before if already else _applied(header, delta, before, digest)
    except DeltaError as error:
        raise DeltaError(f"{delta}: {error}") from error
    make_folder(out.parent)
    remove_leftovers(out.parent, out.name)  # of an update that was killed
    with atomic(out) as temporary:
        temporary.write_bytes(after)
        shutil.copymode(old, temporary)
        if hashlib.sha256(temporary.read_bytes()).digest() != header.new_hash:
            raise WriteError(f"{out}: the disk does not give back what was written; nothing was replaced")
    return Updated(header, already)


def _applied(header: Header, delta: Path, before: bytes, digest: bytes) -> bytes:
    """The new file. Raises DeltaError if `before`, whose hash is `digest`, or the payload is not the right one."""
    if digest != header.old_hash:
        raise DeltaError(
            f"made for version {header.old_version} of {header.line!r} (sha256 {header.old_hash.hex()[:16]}...), "
            f"not for this file ({digest.hex()[:16]}...)"
        )
    if len(before) != header.old_size:
        raise DeltaError(f"damaged: its old file has {len(before):,} bytes, its header says {header.old_size:,}")
    payload = memoryview(content(delta))[HEADER_BYTES:]
    if len(payload) != header.payload_size or hashlib.sha256(payload).digest() != header.payload_hash:
        raise DeltaError("damaged: its payload is not the one that its header describes")
    after = coding.decode(header, payload, before)
    if hashlib.sha256(after).digest() != header.new_hash:
        raise DeltaError("damaged: what it makes is not the file that its header names")
    return after


def _check_wanted(header: Header, line: str | None, allow_rollback: bool) -> None:
    """Raises DeltaError if this is no update that the caller would take."""
    if line is not None and header.line != line:
        raise DeltaError(f"an update of {header.line!r}, not of {line!r}")
    if header.new_version <= header.old_version and not allow_rollback:
        raise DeltaError(
            f"leads back from version {header.old_version} to {header.new_version}; --allow-rollback accepts that"
        )
