"""ImageNet (ILSVRC-2012), from a folder only, and Imagenette, ten of its easy classes."""

from smallcnn.data.folder import read_images
from smallcnn.data.listing import Listing
from smallcnn.data.named.official import Contents, Copy, NamedSet, OfficialFile
from smallcnn.errors import DataError
from smallcnn.image.imagenet import by_wnid


def _read_imagenet(copy: Copy) -> Contents:
    if copy.root is None:
        raise DataError(
            "imagenet cannot be downloaded here: each user must agree to its terms at https://image-net.org; "
            "give the folder as root: train/WNID/*.JPEG and val/WNID/*.JPEG, one folder per class such as n01440764"
        )
    return _by_name(read_images(copy.root), str(copy.root))


def _read_imagenette(copy: Copy) -> Contents:
    path = copy.find("imagenette2-320.tgz", "imagenette2-320", "imagenette2", "imagenette2-160")
    return _by_name(read_images(path), str(path))


def _by_name(read: Listing, where: str) -> Contents:
    """Class folders are WordNet ids; sorted, they are in ImageNet's order."""
    known = by_wnid()
    if unknown := [name for name in read.classes if name not in known]:
        raise DataError(f"{where}: the folder {unknown[0]} is not one of ImageNet's 1,000 classes, such as n01440764")
    return tuple(known[name] for name in read.classes), read.splits


_CITATION = "Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, IJCV 115"
IMAGENET = NamedSet(
    _read_imagenet,
    files=(),
    classes=1000,
    mirror=True,
    licence="non-commercial research and education, after agreeing to its terms; the photographs are their authors'",
    citation=_CITATION,
)
IMAGENETTE = NamedSet(
    _read_imagenette,
    files=(
        OfficialFile(
            "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", 341_553_947,
            "5020a9130cea0348272823cb12d2db7e981c6f2afa3dce71ccd5b8013005c55e",
        ),
    ),
    classes=10,
    mirror=True,
    licence="Apache 2.0 for the selection (fast.ai); ImageNet's terms for the photographs",
    citation=f"Howard 2019, Imagenette; {_CITATION}",
)  # fmt: skip
