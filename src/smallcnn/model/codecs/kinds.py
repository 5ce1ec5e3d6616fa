"""The codecs: how one tensor becomes parts, vectors of uint8 that are deflated one after the other.

raw       each byte of the numbers in a part of its own: first all lowest bytes, then the next
shared    a codebook of at most 256 numbers, raw, and for each number of the tensor its index
sparse    the distances between the numbers that are not zero, and these as raw or shared
product   codebooks of at most 256 vectors, raw, and for each vector of the tensor its index
hashed    the values that a hash of each number's place chooses from, raw

Numbers are equal if their bits are, so that decoding gives back every bit. A distance of n + 1 is the byte n, below
255; 255 is a step of 255 with no number at its end. Codecs without parameters beyond sizes are told apart by `kind`;
each knows from these and the tensor how long its parts are, before anything is unpacked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from smallcnn.errors import FileError
from smallcnn.ir import checks
from smallcnn.model.codecs.codec import Array, Codec, Parts
from smallcnn.model.codecs.hashed import Hashed
from smallcnn.model.codecs.product import Product
from smallcnn.model.codecs.scalars import Raw, Shared, Sparse

CODECS: dict[str, type[Raw | Shared | Sparse | Product | Hashed]] = {
    each.kind: each for each in (Raw, Shared, Sparse, Product, Hashed)
}
"""Codecs by name."""


def candidates(value: Array) -> Iterable[tuple[Codec, Parts]]:
    """The codecs that a tensor can be stored with."""
    yield Raw.encode(value)
    for codec in (Shared, Sparse, Product, Hashed):
        if value.size and (found := codec.encode(value)):
            yield found


def to_json(codec: Codec) -> dict[str, Any]:
    """The codec's name and parameters."""
    return {"codec": codec.kind, **asdict(codec)}  # type: ignore[call-overload]


def from_json(record: Mapping[str, Any]) -> Codec:
    """The inverse of `to_json`. Raises FileError for a codec that there is not, or sizes that are none."""
    kind = record.get("codec")
    if not (isinstance(kind, str) and kind in CODECS):
        raise FileError(f"no codec {checks.shown(kind)}; there are {', '.join(CODECS)}")
    sizes = {name: size for name, size in record.items() if name != "codec"}
    if not all(checks.is_whole(size, 0) for size in sizes.values()):
        raise FileError(f"codec {kind} of {checks.shown(sizes)}")
    try:
        return CODECS[kind](**sizes)
    except TypeError as error:
        raise FileError(f"codec {kind} of {checks.shown(sizes)}") from error
