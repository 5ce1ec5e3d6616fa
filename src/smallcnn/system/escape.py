"""Escaping of foreign text for display: labels, file names and metadata of model files.

A terminal obeys control characters, and invisible ones can reverse or hide part of a line. All displayed text goes
through `escaped`, which writes such characters as Python does: \\n, \\x1b, \\u202e. Files keep the text unchanged.
"""

import re
import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control, format (bidirectional overrides, zero width), halves of surrogate pairs, line and paragraph separators."""

_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
"""Letters and marks without a visible shape."""

_PLAIN = re.compile(r"[ -~]*")


def escaped(text: str) -> str:
    """`text` on one line, with invisible characters escaped."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN or c in _FILLERS else c for c in text
    )
