"""Names of classes next to YOLO's labels: data.yaml, obj.data and obj.names, classes.txt.

YAML is read as far as such files use it: scalars, lists and one level of `number: name`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from smallcnn.data.boxes.files import Files
from smallcnn.errors import DataError

_LARGEST = 1 << 20
_MOST_CLASSES = 100_000
_LISTS = ("classes.txt", "names.txt", "labels.txt", "obj_names.txt", "predefined_classes.txt")
_KEY = re.compile(r"([\w./-]+|\"[^\"]*\"|'[^']*')\s*:(?:\s+(.*))?$")


@dataclass(frozen=True)
class Description:
    """What `files` say: names by class number (empty if unknown), and per split the places of its images.

    A place is a folder, or a list of images. `points`: labels have key points after the box.
    """

    names: dict[int, str] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    points: bool = False


def is_list_of_names(name: str) -> bool:
    """Whether a file of this name lists names of classes, one in a line."""
    base = PurePosixPath(name).name.lower()
    return base in _LISTS or base.endswith((".names", ".labels"))


def describe(files: Files) -> Description:
    """Reads the outermost of these files; a YAML first. Raises DataError if it cannot be read."""
    outermost = sorted(files.others, key=lambda name: (name.count("/"), name))
    lists = [name for name in outermost if is_list_of_names(name)]
    for name in outermost:
        if name.lower().endswith((".yaml", ".yml")):
            fields = _yaml(_text(files, name))
            if "names" in fields and fields.keys() & {"train", "val", "nc"}:
                names = _numbered(files, name, fields["names"])
                return Description(names, _places(fields), (name,), points="kpt_shape" in fields)
        if name.lower().endswith(".data"):
            fields = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", _text(files, name), re.MULTILINE))
            if "names" in fields and lists:
                return Description(_lines(files, lists[0]), _places(fields), (name, *lists))
    return Description(_lines(files, lists[0]), files=tuple(lists)) if lists else Description()


def _text(files: Files, name: str) -> str:
    return files.read(name, _LARGEST).decode("utf-8-sig", "replace")


def _lines(files: Files, name: str) -> dict[int, str]:
    lines = [line.strip() for line in _text(files, name).rstrip().splitlines()]
    return _numbered(files, name, lines)


def _numbered(files: Files, name: str, names: object) -> dict[int, str]:
    """Class number -> name. Raises DataError."""
    entries = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{files.path(name)}: no names of classes can be read from it")
    if len(entries) > _MOST_CLASSES:
        raise DataError(f"{files.path(name)}: more than {_MOST_CLASSES:,} classes")
    found = {}
    for key, value in entries.items():
        if not re.fullmatch(r"\d{1,9}", str(key), re.ASCII) or not isinstance(value, str) or not value:
            raise DataError(f"{files.path(name)}: class {str(key)[:50]!r} has no name")
        found[int(key)] = value
    return found


def _places(fields: dict[str, object]) -> dict[str, list[str]]:
    found = {}
    for key, split in (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test")):
        value = fields.get(key)
        places = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]
        if places:
            found[split] = places
    return found


def _yaml(text: str) -> dict[str, object]:
    """The entries of the outermost mapping that can be read; others are missing."""
    found: dict[str, object] = {}
    for key, value, below in _entries(text):
        if value[:1] in ("[", "{"):
            whole = " ".join([value, *below])
            found[key] = _flow(whole)
        elif value:
            found[key] = _scalar(value)
        elif below and all(line.startswith("- ") or line == "-" for line in below):
            found[key] = [_scalar(line[1:].strip()) for line in below]
        else:
            pairs = [match for line in below if (match := _KEY.fullmatch(line))]
            found[key] = {_scalar(match[1]): _scalar(match[2] or "") for match in pairs}
    return found


def _entries(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Key, the rest of its line, and the lines below that belong to it, without comments."""
    key, value, below = "", "", list[str]()
    for raw in text.splitlines():
        line = _uncommented(raw).rstrip()
        if not line or line in ("---", "..."):
            continue
        match = _KEY.fullmatch(line)
        if match and not line[0].isspace():
            if key:
                yield key, value, below
            key, value, below = _scalar(match[1]), (match[2] or "").strip(), []
        else:
            below.append(line.strip())
    if key:
        yield key, value, below


def _uncommented(line: str) -> str:
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and line[place - 1] != "\\" else quote
        elif letter in "\"'" and (not place or not line[place - 1].isalnum()):
            quote = letter
        elif letter == "#" and (not place or line[place - 1].isspace()):
            return line[:place]
    return line


def _flow(text: str) -> object:
    """[a, "b"] as a list, {0: a} as a dict."""
    inner = text[1:].rstrip().removesuffix("]" if text[0] == "[" else "}")
    tokens = re.findall(r"\s*((?:\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|[^,\"'])(?:[^,]*))\s*(?:,|$)", inner)
    items = [token.strip() for token in tokens if token.strip()]
    if text[0] == "[":
        return [_scalar(item) for item in items]
    pairs = [match for item in items if (match := _KEY.fullmatch(item))]
    return {_scalar(match[1]): _scalar(match[2] or "") for match in pairs}


def _scalar(text: str) -> str:
    """The text of a scalar, without quotes."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            return text[1:-1]
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text
