"""Foreign text for people to read: labels, file names and what model files say of themselves.

A terminal obeys control characters, and invisible ones can turn a line around or hide half of it. Whatever is shown
goes through `escaped`: as Python writes such characters in a string, \\n, \\x1b, \\u202e. Files keep the text as it is.
"""

import re
import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control, format (bidirectional overrides, zero width), halves of surrogate pairs, line and paragraph separators."""

_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
"""Letters and marks that have no shape."""

_PLAIN = re.compile(r"[ -~]*")


def escaped(text: str) -> str:
    """`text` in one line, with nothing in it that cannot be seen."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN or c in _FILLERS else c for c in text
    )
