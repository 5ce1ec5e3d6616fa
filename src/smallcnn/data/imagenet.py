"""The 1,000 classes of ImageNet (ILSVRC-2012), in the order every public network numbers them: sorted by WordNet id.

`imagenet.txt` has one line per class, its WordNet id and a name: the first word of the synset (Deng et al. 2009), made
unique for the four that are not ("crane" is a bird and a machine).
"""

from functools import cache
from importlib.resources import files

BACKGROUND = "background"
"""Class 0 of TensorFlow-Slim's 1,001."""


@cache
def by_wnid() -> dict[str, str]:
    """WordNet id ("n01440764") -> name ("tench"), in class order."""
    lines = files("smallcnn.data").joinpath("imagenet.txt").read_text("utf-8").splitlines()
    return {wnid: name for wnid, _, name in (line.partition(" ") for line in lines)}


def labels() -> tuple[str, ...]:
    """The 1,000 names in class order."""
    return tuple(by_wnid().values())
