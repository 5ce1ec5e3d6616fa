"""Weights fetched before they are read, in code that Halide made.

A kernel for a small map reads each weight for few pixels, and a network's weights do not fit the caches: the first tile
of pixels waits for them. Halide's own prefetches come in bursts before a loop, which wait just as long, and go past the
second-level cache. So where a kernel names an operand "..._ahead4096", each of its reads in LLVM's assembly is given a
prefetch of what lies 4096 bytes further on: the same weights of the next tile's lanes. Those of all tiles after the
first find their line in the second level and cost little.
"""

import itertools
import re

MARK = "_ahead"
"""In the name of an operand, before the distance in bytes."""
_LINE = 64
"""Bytes of a cache line, on every x86-64."""
_NAME = re.compile(rf'^(!\d+) = !\{{!"\w+{MARK}(\d+)", ', re.MULTILINE)
"""What LLVM knows the values of an operand by."""
_END = re.compile(r"  (br|ret|switch|unreachable)\b")
"""The last instruction of a block."""
_OFFSET = re.compile(r"  (%\S+) = getelementptr (?:\w+ )*i8, ptr (%\S+), i64 (\d+)$")
_READ = re.compile(r"  %\S+ = load .*, ptr (%[^\s,]+), .*!tbaa (!\d+)\b")
_PREFETCH = "llvm.prefetch.p0"


def prefetched(code: str) -> str:
    """LLVM assembly with prefetches into the second-level cache, one for each line that is read; with operands that ask
    for none, as it is."""
    ahead = {}
    for kind, distance in _NAME.findall(code):
        tag = re.search(rf"^(!\d+) = !\{{{kind}, {kind}, i64 0\}}$", code, re.MULTILINE)
        if tag:
            ahead[tag[1]] = int(distance)
    if not ahead:
        return code
    done: list[str] = []
    offsets: dict[str, tuple[str, int]] = {}
    fetched: dict[tuple[str, int], list[str]] = {}  # by the line that this block reads
    for text in code.splitlines():
        if _END.match(text):  # between its reads they would take registers from the sums
            done += itertools.chain(*fetched.values())
            fetched = {}
        done.append(text)
        if found := _OFFSET.match(text):
            offsets[found[1]] = found[2], int(found[3])
        elif (found := _READ.match(text)) and found[2] in ahead:
            base, offset = offsets.get(found[1], (found[1], 0))
            name = f"%ahead.{len(done)}"
            place = f"  {name} = getelementptr i8, ptr {found[1]}, i64 {ahead[found[2]]}"
            call = f"  tail call void @{_PREFETCH}(ptr {name}, i32 0, i32 2, i32 1)"
            fetched.setdefault((base, offset // _LINE), [place, call])
    return "\n".join((*done, f"declare void @{_PREFETCH}(ptr, i32 immarg, i32 immarg, i32 immarg)", ""))
