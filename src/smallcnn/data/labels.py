"""The names of a network's classes: those of a file, and which of them a data set's class is."""

import numpy as np

from smallcnn.data import imagenet
from smallcnn.errors import DataError, FileError

_LONGEST = 1000


def checked_labels(said: object) -> tuple[str, ...]:
    """What a file says its labels are. Raises FileError unless it is a list of texts of at most 1,000 characters.

    Any character may be in them; what cannot be seen is escaped where they are shown (`smallcnn.escape`).
    """
    if not (isinstance(said, list) and all(isinstance(label, str) for label in said)):
        raise FileError("its labels are not a list of names")
    if long := [label for label in said if len(label) > _LONGEST]:
        raise FileError(f"one of its labels has {len(long[0]):,} characters; at most {_LONGEST:,} are allowed")
    return tuple(said)


def match_labels(classes: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray:
    """For each class of the data, its index among the network's labels. Raises DataError naming those without one.

    Folders of ImageNet, named by WordNet id, go by ImageNet's names.
    """
    known = imagenet.by_wnid()
    if not set(classes) <= set(labels) and set(classes) <= known.keys():
        classes = tuple(known[name] for name in classes)
    given, place = set(classes), {label: index for index, label in enumerate(labels)}
    if unknown := [name for name in classes if name not in place]:
        unseen = [label for label in labels if label not in given]
        raise DataError(
            f"labels do not match: the network does not know {_some(unknown)}; "
            + (f"the data lacks its {_some(unseen)}" if unseen else f"it knows {_some(list(labels))}")
        )
    return np.array([place[name] for name in classes])


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
