"""Symbols in object files: lists imports and exports, and renames them. 64-bit ELF and Mach-O.

Two networks can be linked into one program only if they share no name; Halide chooses the names of kernels and of the
functions they call.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

_ELF, _MACH_O = b"\x7fELF\x02\x01", b"\xcf\xfa\xed\xfe"


@dataclass(frozen=True)
class _Table:
    """An object's symbols: `entries` (position of each) and the table of their names."""

    entries: range
    names: slice
    fields: tuple[int, ...]  # positions of the fields that hold the position and the size of the names
    formats: tuple[str, ...]
    underscore: str  # the format's prefix for C names


def external(content: bytes) -> dict[str, bool]:
    """Names visible to other objects, each with whether it is defined here."""
    table = _table(content)
    return {
        _name(content, table, entry).removeprefix(table.underscore): defined
        for entry in table.entries
        if (defined := _defined(content, entry)) is not None
    }


def rename(content: bytes, names: Mapping[str, str]) -> bytes:
    """The object with its symbols renamed, old to new; new names are appended, others stay."""
    table = _table(content)
    changed, added = bytearray(content), bytearray(content[table.names])
    for entry in table.entries:
        new = names.get(_name(content, table, entry).removeprefix(table.underscore))
        if new is not None and _defined(content, entry) is not None:
            struct.pack_into("<I", changed, entry, len(added))
            added += f"{table.underscore}{new}\0".encode()
    changed += bytes(-len(changed) % 16)
    for field, form, value in zip(table.fields, table.formats, (len(changed), len(added)), strict=True):
        struct.pack_into(form, changed, field, value)
    return bytes(changed + added)


def _table(content: bytes) -> _Table:
    if content.startswith(_ELF):
        return _elf(content)
    if content.startswith(_MACH_O):
        return _mach_o(content)
    raise ValueError("an object file that is neither 64-bit ELF nor 64-bit Mach-O")


def _elf(content: bytes) -> _Table:
    (headers,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    for header in range(headers, headers + size * count, size):
        kind, offset, length, link = struct.unpack_from("<4xI16xQQI", content, header)
        if kind == 2:  # SHT_SYMTAB
            names = headers + size * link
            start, bytes_ = struct.unpack_from("<QQ", content, names + 0x18)
            entries = range(offset, offset + length, 24)
            return _Table(entries, slice(start, start + bytes_), (names + 0x18, names + 0x20), ("<Q", "<Q"), "")
    raise ValueError("an object file without symbols")


def _mach_o(content: bytes) -> _Table:
    (count,) = struct.unpack_from("<I", content, 16)
    command = 32
    for _ in range(count):
        kind, size = struct.unpack_from("<II", content, command)
        if kind == 2:  # LC_SYMTAB
            offset, length, start, bytes_ = struct.unpack_from("<4I", content, command + 8)
            entries = range(offset, offset + 16 * length, 16)
            return _Table(entries, slice(start, start + bytes_), (command + 16, command + 20), ("<I", "<I"), "_")
        command += size
    raise ValueError("an object file without symbols")


def _name(content: bytes, table: _Table, entry: int) -> str:
    (offset,) = struct.unpack_from("<I", content, entry)
    start = table.names.start + offset
    return content[start : content.index(b"\0", start)].decode()


def _defined(content: bytes, entry: int) -> bool | None:
    """Whether the symbol is defined; None if other objects cannot see it."""
    if content.startswith(_ELF):
        info, section = struct.unpack_from("<4xBxH", content, entry)
        return None if info >> 4 == 0 else section != 0  # STB_LOCAL, SHN_UNDEF
    kind = content[entry + 4]
    return None if kind & 0xE0 or not kind & 1 else kind & 0x0E != 0  # N_STAB, N_EXT, N_TYPE
