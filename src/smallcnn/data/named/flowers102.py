"""Oxford 102 Flowers: 8,189 photographs of 102 kinds of flowers; 1,020 each for training and validation."""

import numpy as np

from smallcnn.data.archive import files_in
from smallcnn.data.named.matlab import read_mat
from smallcnn.data.named.official import Contents, Copy, NamedSet, OfficialFile
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError

_CLASSES = tuple(
    name.strip()
    for name in """
    pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
    bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
    globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
    fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
    sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
    cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
    bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
    sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia, cautleya spicata,
    japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
    windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus,
    toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
    watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow,
    mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
    """.split(",")  # noqa: SIM905  (more readable for a hundred names)
)


def _read(copy: Copy) -> Contents:
    path = copy.find("102flowers.tgz", "jpg")
    images = {name.rpartition("/")[2]: file for name, file in files_in(path).items()}
    (labels,) = read_mat(copy.find("imagelabels.mat"), "labels")
    ids = read_mat(copy.find("setid.mat"), "trnid", "valid", "tstid")
    splits = {}
    for key, numbers in zip(("train", "val", "test"), ids, strict=True):
        names = [f"image_{number:05d}.jpg" for number in numbers.reshape(-1).tolist()]
        if missing := [name for name in names if name not in images]:
            raise DataError(f"{path}: {len(missing)} images are missing, the first is {missing[0]}")
        classes = labels.reshape(-1)[numbers.reshape(-1).astype(np.int64) - 1].astype(np.int64) - 1
        splits[key] = Split([images[name] for name in names], Classes(classes), names)
    return _CLASSES, splits


_HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
FLOWERS102 = NamedSet(
    _read,
    files=(
        OfficialFile(
            f"{_HOME}102flowers.tgz", 344_862_509, "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"
        ),
        OfficialFile(
            f"{_HOME}imagelabels.mat", 502, "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d"
        ),
        OfficialFile(f"{_HOME}setid.mat", 14_989, "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"),
    ),
    classes=102,
    mirror=True,
    licence="none stated; the photographs are from the web and belong to their authors; for research, with citation",
    citation="Nilsback and Zisserman 2008, Automated Flower Classification over a Large Number of Classes",
)
