"""Choice of the images of a training split to hold out for validation, as ascending indices."""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np


def by_hash(labels: np.ndarray, names: Sequence[str], seed: int, fraction: float) -> list[int]:
    """The images of each class with the lowest hash of seed and name; at least one if the class has two."""
    taken: set[int] = set()
    by_class = np.argsort(labels, kind="stable")
    for indices in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        members = indices.tolist()
        members.sort(key=lambda i: _hash(f"{seed}/{names[i]}"))
        taken.update(members[: min(max(round(len(members) * fraction), 1), max(len(members) - 1, 0))])
    return sorted(taken)


def by_groups(
    labels: np.ndarray, names: Sequence[str], group_of: Mapping[str, str], seed: int, fraction: float
) -> list[int]:
    """Whole groups, with about `fraction` of each class as far as groups allow. An image without a group is its own.

    Groups are taken in the order of a hash of seed and name, so the choice does not depend on the order of the images.
    Every class keeps training images, and gets validation images if it is in more than one group.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        members[f"group {group_of[name]}" if name in group_of else f"image {name}"].append(i)
    counts = np.bincount(labels)
    error = _Error(counts, fraction)
    order = sorted(members, key=lambda group: _hash(f"{seed}/{group}"))
    label_of = labels.tolist()
    # sorted, because float sums depend on the order
    inside = {group: dict(sorted(Counter(label_of[i] for i in members[group]).items())) for group in order}
    taken: set[str] = set()

    def take(group: str) -> None:
        taken.add(group)
        error.add(inside[group])

    for group in order:
        if error.leaves_some(inside[group]) and error.after(inside[group]) < 0:
            take(group)
    for label in np.argsort(counts, kind="stable"):  # classes whose groups are all too large for the error to shrink
        if counts[label] and not error.held[label]:
            able = [group for group in order if label in inside[group] and error.leaves_some(inside[group])]
            if able:
                take(min(able, key=lambda group: error.after(inside[group])))
    return sorted(i for group in taken for i in members[group])


class _Error:
    """Squared error of the held-out fractions: the sum over classes of (held - wanted)^2 / count^2."""

    def __init__(self, counts: np.ndarray, fraction: float) -> None:
        self._counts, self._wanted = counts, counts * fraction
        self.held = np.zeros(len(counts), np.int64)

    def leaves_some(self, more: Mapping[int, int]) -> bool:
        return all(self.held[label] + count < self._counts[label] for label, count in more.items())

    def after(self, more: Mapping[int, int]) -> float:
        """Change of the error if `more` images of each class were held out."""
        return sum(
            float(count * (2 * (self.held[label] - self._wanted[label]) + count)) / float(self._counts[label]) ** 2
            for label, count in more.items()
        )

    def add(self, more: Mapping[int, int]) -> None:
        for label, count in more.items():
            self.held[label] += count


def as_text(held_out: list[int], images: int, fingerprint: str) -> str:
    """The held-out images as a bit mask, with the fingerprint of their data set."""
    mask = np.zeros(images, bool)
    mask[held_out] = True
    return f"{fingerprint}:{base64.b64encode(np.packbits(mask).tobytes()).decode()}"


def from_text(text: object, images: int, fingerprint: str) -> list[int] | None:
    """The inverse of `as_text`; None if the text is invalid or from another data set."""
    set_, _, bits = text.partition(":") if isinstance(text, str) else ("", "", "")
    if set_ != fingerprint:
        return None
    try:
        packed = np.frombuffer(base64.b64decode(bits, validate=True), np.uint8)
    except ValueError:
        return None
    return np.flatnonzero(np.unpackbits(packed)[:images]).tolist() if len(packed) == -(-images // 8) else None


def _hash(text: str) -> bytes:
    """Hash of any file name, which on Linux may contain bytes that are not valid text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
