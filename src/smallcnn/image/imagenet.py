"""The 1,000 classes of ImageNet (ILSVRC-2012), in the order that public networks use: sorted by WordNet id.

`imagenet.txt` has one line per class: its WordNet id and a name. The name is the first word of the synset (Deng et al.
2009), changed for the four that are not unique ("crane" is a bird and a machine).
"""

from functools import cache
from importlib.resources import files

BACKGROUND = "background"
"""Name of class 0 in TensorFlow-Slim's 1,001 classes."""


@cache
def by_wnid() -> dict[str, str]:
    """WordNet id ("n01440764") -> name ("tench"), in class order."""
    lines = files("smallcnn.image").joinpath("imagenet.txt").read_text("utf-8").splitlines()
    return {wnid: name for wnid, _, name in (line.partition(" ") for line in lines)}


def labels() -> tuple[str, ...]:
    """The 1,000 names in class order."""
    return tuple(by_wnid().values())
