"""Reproducible .safetensors files: the library writes the metadata in another order each time.

8 bytes    length of the header, little-endian
header     JSON: name -> type, shape and offsets of each tensor, and "__metadata__"; padded with spaces to 8 bytes
the rest   the tensors, one after the other
"""

import json


def ordered(content: bytes) -> bytes:
    """The same file with its header in alphabetical order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[start:]))
