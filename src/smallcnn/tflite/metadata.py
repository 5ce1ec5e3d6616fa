"""TensorFlow Lite metadata: a network's labels and its image preparation.

The metadata is a separate flatbuffer (schema `metadata_schema.fbs` of tflite-support, file identifier "M001"), stored
in the file under the name TFLITE_METADATA. The labels are a text file in a zip archive after the network.
"""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn.errors import FileError

_NAME = "TFLITE_METADATA"
_NORMALIZATION = 1  # of ProcessUnitOptions
_LABELS = (2, 3)  # of AssociatedFileType: labels of an axis, or of a value
_MOST = 1_000  # entries of any list
_MOST_TEXT = 2**22


@dataclass(frozen=True)
class Metadata:
    """The labels, if any; mean and standard deviation on the image's scale, 0 to 255."""

    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_metadata(content: bytes, stored: dict[str, bytes]) -> Metadata:
    """The metadata of a file with one input and one output; empty if it has none. FileError if it is damaged."""
    if _NAME not in stored:
        return Metadata()
    try:
        return _read(content, stored[_NAME])
    except FileError:
        raise
    except (struct.error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FileError("damaged: the offsets in its metadata are invalid") from error


def _read(content: bytes, stored: bytes) -> Metadata:
    graphs = _tables(_root(stored), 3)
    if not graphs:
        return Metadata()
    inputs, outputs = _tables(graphs[0], 2), _tables(graphs[0], 3)
    mean = std = None
    for unit in _tables(inputs[0], 4) if inputs else ():
        if _number(unit, 0) == _NORMALIZATION and (options := _table(unit, 1)):
            mean, std = _floats(options, 0), _floats(options, 1)
    names = [_text(file, 0) for output in outputs[:1] for file in _tables(output, 6) if _number(file, 2) in _LABELS]
    labels = _lines(content, names[0]) if names else None
    if not (mean and std and len(mean) == len(std) and np.isfinite([mean, std]).all() and min(std) > 0):
        mean = std = None
    return Metadata(labels, mean, std)


def _lines(content: bytes, name: str) -> tuple[str, ...] | None:
    """The lines of a text file in the archive after the network; None if absent."""
    end = content.rfind(b"PK\5\6")  # the end record holds the length of the member list, which zipfile reads in full
    if end < 0:
        return None
    if int.from_bytes(content[end + 12 : end + 16], "little") > _MOST_TEXT:
        raise FileError("damaged: the archive of its labels lists too many members")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as file:
            text = file.read(_MOST_TEXT + 1)
    except KeyError:
        return None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise FileError("damaged: the archive of its labels cannot be read") from error
    if len(text) > _MOST_TEXT:
        raise FileError(f"its labels take more than {_MOST_TEXT:,} bytes")
    return tuple(line.strip() for line in text.decode("utf-8-sig", errors="replace").rstrip().splitlines())


def _root(data: bytes) -> Any:
    import flatbuffers

    (start,) = struct.unpack_from("<I", data)
    return flatbuffers.table.Table(bytearray(data), start)


def _field(table: Any, number: int) -> int:
    """The offset of field `number`; 0 if absent."""
    offset = table.Offset(4 + 2 * number)
    return int(offset and table.Pos + offset)


def _table(table: Any, number: int) -> Any:
    import flatbuffers

    at = _field(table, number)
    return flatbuffers.table.Table(table.Bytes, table.Indirect(at)) if at else None


def _tables(table: Any, number: int) -> list[Any]:
    import flatbuffers

    offset = table.Offset(4 + 2 * number)
    if not offset:
        return []
    start, count = table.Vector(offset), table.VectorLen(offset)
    if count > _MOST:
        raise FileError(f"damaged: {count} entries in a list of its metadata")
    return [flatbuffers.table.Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(count)]


def _floats(table: Any, number: int) -> tuple[float, ...]:
    import flatbuffers

    offset = table.Offset(4 + 2 * number)
    if not offset or table.VectorLen(offset) > _MOST:
        return ()
    values = table.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, offset)
    return tuple(float(value) for value in values)


def _number(table: Any, number: int) -> int:
    at = _field(table, number)
    return int(table.Bytes[at]) if at else 0


def _text(table: Any, number: int) -> str:
    at = _field(table, number)
    return bytes(table.String(at)).decode(errors="replace") if at else ""
