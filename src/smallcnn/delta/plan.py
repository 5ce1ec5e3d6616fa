"""The steps of a delta: for each range of the new file the kind of step that takes the fewest bytes."""

from collections.abc import Iterator, Sequence
from math import log

import numpy as np
import numpy.typing as npt

from smallcnn.delta.coding import compressed, encode, fold, planes
from smallcnn.delta.layout import MOST_STEPS, Kind, Step
from smallcnn.delta.packed import MOST_BLOCKS, Table, opened, table_to_bytes
from smallcnn.delta.pairs import Blocks, Pair
from smallcnn.delta.tensors import tensor_pairs

_EQUAL = 512
"""Equal bytes within a range that are worth a step of their own."""

_MOST_PARTS = 4096

_QUICK = 3  # zstd level for estimates
_SAMPLE = 1 << 18


def smallest(old: bytes, new: bytes) -> tuple[list[Step], bytes]:
    """The steps that make `new` from `old`, and the payload: with packed ranges open if that is smaller."""
    chosen = steps(old, new)
    found = chosen, encode(chosen, old, new)
    (open_old, old_ranges), (open_new, new_ranges) = opened(old), opened(new)
    if old_ranges and new_ranges and sum(len(each.blocks) for each in new_ranges) <= MOST_BLOCKS:
        chosen = steps(open_old, open_new, packed=True)
        table = table_to_bytes(Table(old_ranges, new_ranges, len(open_new)))
        other = encode(chosen, open_old, open_new, table)
        found = min(found, (chosen, other), key=lambda each: len(each[1])) if len(table) <= len(new) else found
    return found


def steps(old: bytes, new: bytes, *, packed: bool = False) -> list[Step]:
    """The steps that make `new` from `old`, whose headers do not hold if `packed` ranges were opened."""
    found: list[Step] = []
    blocks = Blocks(old, new)
    for step in _chosen((not packed and tensor_pairs(blocks)) or blocks.pairs(0, len(new)), old, new):
        last = found[-1] if found else None
        if last and step.kind == last.kind != Kind.FRESH and last.old + last.old_length == step.old:
            found[-1] = Step(step.kind, last.old, last.old_length + step.old_length, last.length + step.length)
        else:
            found.append(step)
    return found if len(found) <= MOST_STEPS else [Step(Kind.FRESH, 0, len(old), len(new))]


def _chosen(found: Sequence[Pair], old: bytes, new: bytes) -> Iterator[Step]:
    """The steps for pairs that cover the new file."""
    room = 2 * len(old)  # for dictionaries, see `layout.steps_from_bytes`
    for pair in (part for whole in found for part in _parts(whole, old, new)):
        kind, length = _cheapest(pair, old, new), pair.new_end - pair.new
        used = pair.old_end - pair.old
        if kind == Kind.FRESH:
            used = min(used, room)
            room -= used
        yield Step(kind, pair.old, used, length)


def _parts(pair: Pair, old: bytes, new: bytes) -> Iterator[Pair]:
    """The pair; if its numbers are unknown, cut into long ranges of equal bytes and those between them."""
    if pair.width or not pair.aligned:
        yield pair
        return
    before, after = (np.frombuffer(x, np.uint8) for x in (old[pair.old : pair.old_end], new[pair.new : pair.new_end]))
    changed = np.flatnonzero(before != after)
    equal = _EQUAL
    while np.count_nonzero(np.diff(changed) > equal) > _MOST_PARTS:
        equal *= 2
    at = 0
    for run in np.split(changed, np.flatnonzero(np.diff(changed) > equal) + 1) if len(changed) else ():
        first, last = int(run[0]), int(run[-1]) + 1
        first = max(at, first - (pair.old + first) % 4)  # words lie at multiples of 4 in all files we know
        last = min(len(after), last + -(pair.old + last) % 4)
        if at < first:
            yield Pair(pair.new + at, pair.new + first, pair.old + at, pair.old + first)
        yield Pair(pair.new + first, pair.new + last, pair.old + first, pair.old + last)
        at = last
    if at < len(after):
        yield Pair(pair.new + at, pair.new_end, pair.old + at, pair.old_end)


def _cheapest(pair: Pair, old: bytes, new: bytes) -> Kind:
    """The kind of step for a pair; estimated on its first bytes if it is long."""
    before, after = old[pair.old : pair.old_end], new[pair.new : pair.new_end]
    if before == after:
        return Kind.COPY
    if not pair.aligned:
        return Kind.FRESH
    before, after = before[:_SAMPLE], after[:_SAMPLE]
    costs = {Kind.FRESH: 8.0 * len(compressed(after, before, _QUICK))}
    if pair.width != 4:
        costs[Kind.BYTES] = _bits(np.frombuffer(after, np.uint8) - np.frombuffer(before, np.uint8))
    if pair.width != 1 and (pair.new_end - pair.new) % 4 == 0:
        changes = fold(np.frombuffer(after, "<u4") - np.frombuffer(before, "<u4"))
        costs[Kind.WORDS] = sum(map(_bits, planes(changes)))
    return min(costs, key=lambda kind: costs[kind])


def _bits(symbols: npt.NDArray[np.uint8]) -> float:
    """The bits of a sequence coded by frequencies; few symbols seem to need less, so their table is counted too."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / len(symbols))).sum() + (len(counts) - 1) / (2 * log(2)))
