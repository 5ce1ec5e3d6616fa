"""Memory of tensors at the level of channels.

Storage   memory of one tensor: (height, width, pitch) numbers of one type, channels innermost
View      a logical tensor (H, W, C): for every channel, the storage and the lane that holds it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from smallcnn.ir.types import SIZES, Number

_ALIASING = 512
"""Bytes. Pixels spaced a multiple of this apart share few cache sets (32 KiB, 8 ways: the same set every 4 KiB). That
made a depthwise 14x14x512 three times slower than 14x14x576 on a Zen 3; such a pitch is made one line longer."""
_LINE = 64


def up(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple."""
    return -(-value // multiple) * multiple


@dataclass(eq=False)
class Storage:
    """Memory for (height, width) pixels, `pitch` numbers apart, of which the first `lanes` may be written."""

    height: int
    width: int
    lanes: int
    number: Number = "float32"

    @cached_property
    def pitch(self) -> int:
        """Numbers from one pixel to the next; kernels count strides in numbers, too."""
        size = SIZES[self.number]
        return self.lanes + (_LINE // size if self.lanes * size % _ALIASING == 0 else 0)

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def bytes(self) -> int:
        """Size."""
        return self.pixels * self.pitch * SIZES[self.number]

    @property
    def root(self) -> "Storage":
        """The storage that owns the memory."""
        return self


class Flat(Storage):
    """All numbers of a storage as the lanes of one pixel."""

    def __init__(self, base: Storage) -> None:
        super().__init__(1, 1, base.pixels * base.pitch, base.number)
        self._base = base

    @cached_property
    def pitch(self) -> int:
        """As many as there are lanes."""
        return self.lanes

    @property
    def root(self) -> Storage:
        """The storage that is flattened."""
        return self._base


@dataclass(frozen=True, eq=False)
class View:
    """Channel c of a map is lane `slots[c]` of `storages[c]`; all storages have one shape, pitch and number type."""

    storages: tuple[Storage, ...]
    slots: tuple[int, ...]

    @classmethod
    def of(cls, storage: Storage, slots: Sequence[int]) -> "View":
        """Channels of one storage."""
        return cls((storage,) * len(slots), tuple(slots))

    @property
    def storage(self) -> Storage:
        """The only storage; callers check `single` first."""
        return self.storages[0]

    @property
    def number(self) -> Number:
        """The number type of all storages."""
        return self.storages[0].number

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.slots)

    @cached_property
    def single(self) -> bool:
        """Whether all channels lie in one storage."""
        return all(storage is self.storages[0] for storage in self.storages)

    @property
    def uniform(self) -> bool:
        """Whether all storages have one pitch, so that one address step moves from pixel to pixel in all of them."""
        return len({storage.pitch for storage in self.storages}) == 1

    @cached_property
    def contiguous(self) -> bool:
        """Whether the channels are consecutive in one storage."""
        return self.single and self.slots == tuple(range(self.slots[0], self.slots[0] + len(self.slots)))

    def span(self, vector: int) -> tuple[int, int]:
        """First and end lane of the whole vectors that hold the channels."""
        first, last = self._ends
        return first // vector * vector, up(last + 1, vector)

    @cached_property
    def _ends(self) -> tuple[int, int]:
        return min(self.slots), max(self.slots)

    def low(self, vector: int) -> int:
        """The first of these lanes."""
        return self.span(vector)[0]

    def pick(self, channels: Sequence[int]) -> "View":
        """A view of these channels, in this order."""
        return View(tuple(self.storages[c] for c in channels), tuple(self.slots[c] for c in channels))

    def lies_like(self, slots: Sequence[int]) -> bool:
        """Whether the channels have the order and spacing of `slots`."""
        apart = min(self.slots) - min(slots)
        return len(slots) == self.channels and all(a - b == apart for a, b in zip(self.slots, slots, strict=True))
