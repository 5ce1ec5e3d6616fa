"""Ed25519 keys (RFC 8032) as PEM files, which OpenSSL reads: NAME.key is private (PKCS #8), NAME.pub is public."""

from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.delta.reading import content
from smallcnn.errors import DeltaError, FileError, WriteError, require
from smallcnn.system.files import atomic, make_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MOST_BYTES = 1 << 16


def make_keys(path: Path | str) -> tuple[Path, Path, bytes]:
    """Makes a pair of keys: the private file, which only its owner can read, the public file, and its 32 raw bytes.

    `path` may end in .key, and the public file then ends in .pub. Raises WriteError if one of the files exists: a lost
    private key cannot be made again.
    """
    require("smallcnn keygen", "compress", "cryptography")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".key", ".pub") else path
    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for file in (private, public):
        if file.exists():
            raise WriteError(f"{file}: exists already; keys are never overwritten")
    key = Ed25519PrivateKey.generate()
    make_folder(path.parent)
    with atomic(private) as temporary:
        temporary.chmod(0o600)
        secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        temporary.write_bytes(secret)
    with atomic(public) as temporary:
        shown = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        temporary.write_bytes(shown)
    return private, public, key.public_key().public_bytes_raw()


def read_private(path: Path | str) -> "Ed25519PrivateKey":
    """The key to sign with. Raises FileError if the file is missing, encrypted, or holds something else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    found = content(path, _MOST_BYTES)
    try:
        key = serialization.load_pem_private_key(found, password=None)
    except TypeError as error:
        raise FileError(f"{path}: this key is encrypted; decrypt it first") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        what = "a public key; sign with the private one (.key)" if b"PUBLIC KEY" in found else "not a private key"
        raise FileError(f"{path}: {what}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FileError(f"{path}: a private key, but not of Ed25519")
    return key


def read_public(path: Path | str) -> bytes:
    """The 32 bytes of the key to trust. Raises FileError if the file is missing, or holds something else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found = content(path, _MOST_BYTES)
    try:
        key = serialization.load_pem_public_key(found)
    except (ValueError, UnsupportedAlgorithm) as error:
        what = "a private key; give the public one (.pub)" if b"PRIVATE KEY" in found else "not a public key"
        raise FileError(f"{path}: {what}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise FileError(f"{path}: a public key, but not of Ed25519")
    return key.public_bytes_raw()


def check_signature(signer: bytes, signature: bytes, message: bytes) -> None:
    """Raises DeltaError unless the signature is the signer's of this message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise DeltaError("its signature does not fit its content: it is damaged or was tampered with") from error
