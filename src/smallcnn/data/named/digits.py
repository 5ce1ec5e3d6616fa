"""1,797 handwritten digits, 8x8 grey: the test set of UCI's optdigits, which comes with scikit-learn."""

import numpy as np

from smallcnn.data.named.official import Contents, Copy, NamedSet
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import MissingExtra


def _read(copy: Copy) -> Contents:  # noqa: ARG001  (nothing is fetched)
    """Every fifth image is in the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the named set 'digits'", "train") from error
    data = load_digits()
    images = (data.images * 255 / 16).round().astype(np.uint8)
    whole = Split(images, Classes(data.target.astype(np.int64)), [f"digits[{i}]" for i in range(len(images))])
    held_out = np.arange(len(whole)) % 5 == 4
    train, test = np.flatnonzero(~held_out).tolist(), np.flatnonzero(held_out).tolist()
    return tuple("0123456789"), {"train": whole.subset(train), "test": whole.subset(test)}


DIGITS = NamedSet(
    _read,
    files=(),
    classes=10,
    mirror=False,
    licence="CC BY 4.0 (UCI)",
    citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits",
)
