"""Node names from a file's names of its operators."""

import re
from collections import Counter

_LONGEST_NAME = 150


class Names:
    """Node names from the file's: letters, digits, _ and dots; unique, and never also a group of nodes."""

    def __init__(self) -> None:
        self._nodes: set[str] = set()
        self._groups: set[str] = set()
        self._tried: Counter[str] = Counter()

    def new(self, label: str, kind: str) -> str:
        """A node name from the file's `label`, or else from its kind."""
        parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in re.split(r"[./]", label[-_LONGEST_NAME:])]
        name = ".".join(part for part in parts if part) or kind
        if not re.match(r"[A-Za-z_]", name):
            name = f"{kind}_{name}"
        if not self._nodes.isdisjoint(_groups(name)):
            name = name.replace(".", "_")
        free = name
        while free in self._nodes or free in self._groups:
            self._tried[name] += 1
            free = f"{name}_{self._tried[name] + 1}"
        self._nodes.add(free)
        self._groups.update(_groups(free))
        return free


def _groups(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
