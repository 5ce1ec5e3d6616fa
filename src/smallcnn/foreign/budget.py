"""A limit on the numbers that a file makes its reader compute."""

from smallcnn.errors import FileError

_MADE = 2**25  # GoogLeNet's weights, made by ConstantOfShape, take half of it


class Budget:
    """Numbers that may still be computed: proportional to the numbers in the file, plus enough for a small CNN."""

    def __init__(self, stored: int) -> None:
        self._left = self._all = 8 * stored + _MADE

    def spend(self, count: int) -> None:
        """Spends from the budget; FileError if it is exhausted."""
        if count > self._left:
            raise FileError(
                f"would bring the numbers computed from constants to {self._all - self._left + count:,}; "
                f"at most {self._all:,} are allowed for a file of this size"
            )
        self._left -= count
