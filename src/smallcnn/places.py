"""Where something is: a path, an address, or a command; and which of these a file may name.

A command line may say anything, `pipe:` and a command included. What is read from a file is data that anyone may have
written: it may name a file on this machine or an address that is only fetched, and never anything that is run.
"""

import re
from pathlib import Path

from smallcnn.errors import FileError

_FETCHED = ("http", "https")


def scheme(place: str) -> str:
    """What comes before the colon of an address, in small letters; "" of a path (C: is a drive)."""
    found = re.match(r"([A-Za-z][\w+.-]+):", place)
    return found[1].lower() if found else ""


def is_fetched(place: str) -> bool:
    """Whether `place` is at an http or https address."""
    return scheme(place) in _FETCHED


def can_be_stored(place: str) -> bool:
    """Whether a file may name `place`: an absolute path without .., an http or https address, a plain name."""
    if not place.isprintable() or place != place.strip():
        return False
    if scheme(place):
        return is_fetched(place)
    if re.fullmatch(r"\w[\w.-]*", place, re.ASCII):
        return True
    on_the_network = place[:2].replace("\\", "/") == "//"  # opening \\host\x tells the host who asks
    return Path(place).is_absolute() and ".." not in re.split(r"[\\/]", place) and not on_the_network


def name(place: str) -> str:
    """The last word of a path or an address; of what is no path and not fetched only its scheme."""
    return f"{scheme(place)}:" if scheme(place) and not is_fetched(place) else Path(place).name


def stored(place: object, what: str, instead: str) -> str:
    """`place` as it was read from a file. Raises FileError if a file may not name it; `instead` says what to do."""
    if isinstance(place, str) and can_be_stored(place):
        return place
    raise FileError(
        f"it names {what} that only a command line may name ({_shown(place)}): not a whole path of this machine or an "
        f"http(s) address; {instead}"
    )


def _shown(place: object) -> str:
    text = ascii(place)
    return text if len(text) <= 100 else f"{text[:97]}..."
