"""Places of data: a path, an address, or a command; and which of these a file may name.

A command line may name any of them, even `pipe:` and a command. A file is data from anyone: it may name a local file or
an address to fetch, never a command.
"""

import re
from pathlib import Path

from smallcnn.errors import FileError

_FETCHED = ("http", "https")


def scheme(place: str) -> str:
    """The scheme of an address in lower case; "" for a path (C: is a drive)."""
    found = re.match(r"([A-Za-z][\w+.-]+):", place)
    return found[1].lower() if found else ""


def is_fetched(place: str) -> bool:
    """Whether `place` is an http or https address."""
    return scheme(place) in _FETCHED


def can_be_stored(place: str) -> bool:
    """Whether a file may name `place`: an absolute path without .., an http or https address, a plain name."""
    if not place.isprintable() or place != place.strip():
        return False
    if scheme(place):
        return is_fetched(place)
    if re.fullmatch(r"\w[\w.-]*", place, re.ASCII):
        return True
    on_the_network = place[:2].replace("\\", "/") == "//"  # opening \\host\x reveals the user to the host
    return Path(place).is_absolute() and ".." not in re.split(r"[\\/]", place) and not on_the_network


def name(place: str) -> str:
    """The last component of a path or http address; for any other address only the scheme."""
    return f"{scheme(place)}:" if scheme(place) and not is_fetched(place) else Path(place).name


def stored(place: object, what: str, instead: str) -> str:
    """A `place` read from a file, checked. Raises FileError if a file may not name it, with `instead` as advice."""
    if isinstance(place, str) and can_be_stored(place):
        return place
    raise FileError(
        f"it names {what} that only a command line may name ({_shown(place)}): not an absolute local path or an "
        f"http(s) address; {instead}"
    )


def _shown(place: object) -> str:
    text = ascii(place)
    return text if len(text) <= 100 else f"{text[:97]}..."
