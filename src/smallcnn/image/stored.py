"""An image inside a larger file, read on demand and from any thread."""

import zlib
from dataclasses import dataclass
from typing import Protocol

from smallcnn.errors import ImageError


class Store(Protocol):
    """A file that contains images."""

    def read(self, at: int, size: int) -> bytes:
        """The image at this place. Raises ImageError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One image in a store; `name` is for messages, `crc` is the CRC-32 of its bytes if known."""

    store: Store
    at: int
    size: int
    name: str
    crc: int | None = None

    def read(self) -> bytes:
        """The image's bytes. Raises ImageError if they cannot be read or their CRC-32 is wrong."""
        content = self.store.read(self.at, self.size)
        if self.crc is not None and zlib.crc32(content) != self.crc:
            raise ImageError(f"{self.name}: damaged in storage (its CRC-32 differs from the one recorded)")
        return content

    def head(self, most: int) -> bytes:
        """The first `most` bytes, unchecked. Raises ImageError if they cannot be read."""
        return self.store.read(self.at, min(most, self.size))
