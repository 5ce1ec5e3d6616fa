"""Labels: checking those of a file against its network, and matching them to the classes of a data set."""

from collections.abc import Mapping, Sequence

import numpy as np

from smallcnn.errors import DataError, FileError, GraphError
from smallcnn.image import imagenet
from smallcnn.ir.types import Tensor

LONGEST = 1000
"""Characters of a label."""


def checked_labels(value: object) -> tuple[str, ...]:
    """The labels stored in a file. Raises FileError unless they are a list of strings of at most 1,000 characters.

    Labels may contain any character; invisible ones are escaped for display (`system.escape`).
    """
    if not (isinstance(value, list) and all(isinstance(label, str) for label in value)):
        raise FileError("its labels are not a list of names")
    if long := [label for label in value if len(label) > LONGEST]:
        raise FileError(f"one of its labels has {len(long[0]):,} characters; at most {LONGEST:,} are allowed")
    return tuple(value)


def check_logits(results: Mapping[str, Tensor], labels: tuple[str, ...]) -> None:
    """Raises GraphError unless there is one output of one real number per label."""
    if len(results) != 1:
        raise GraphError(f"labels need one output of logits, not {', '.join(results) or 'none'}")
    (tensor,) = results.values()
    if tensor.shape != (len(labels),):
        raise GraphError(f"{len(labels)} labels for an output of shape {tensor.shape}")
    if tensor.number != "float32":
        raise GraphError(f"labels need logits of float32, not {tensor.number}")


def match_labels(classes: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray:
    """The index of each class of the data among the network's labels. Raises DataError naming unknown classes.

    ImageNet folders, named by WordNet id, match ImageNet's names.
    """
    known = imagenet.by_wnid()
    if not set(classes) <= set(labels) and set(classes) <= known.keys():
        classes = tuple(known[name] for name in classes)
    given, place = set(classes), {label: index for index, label in enumerate(labels)}
    if unknown := [name for name in classes if name not in place]:
        unseen = [label for label in labels if label not in given]
        raise DataError(
            f"labels do not match: the network does not know {some(unknown)}; "
            + (f"the data lacks its {some(unseen)}" if unseen else f"it knows {some(labels)}")
        )
    return np.array([place[name] for name in classes])


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
