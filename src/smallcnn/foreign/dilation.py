"""Dilated filters as other programs' files describe them."""

from collections.abc import Sequence

from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.ir.checks import shown


def dilated(kernel: ops.Pair, found: Sequence[int]) -> tuple[ops.Pair, ops.Pair]:
    """The dilation, 1 along a side of one pixel, and the height and width of the area that the filter reads.

    Raises FileError unless a file's dilations are two numbers of at least 1.
    """
    if len(found) != 2 or min(found) < 1:
        raise FileError(f"has dilations {shown(found)}, not two numbers of at least 1")
    down, right = (step if side > 1 else 1 for step, side in zip(found, kernel, strict=True))
    return (down, right), ((kernel[0] - 1) * down + 1, (kernel[1] - 1) * right + 1)
