"""Floats rounded to whole numbers in one instruction, in x86 code that Halide made.

Halide rounds with one instruction (roundps) and converts the result with another. LLVM does not join them, as it does
not look into the first. So in LLVM's assembly a conversion of rounded numbers becomes `lrint`, which is cvtps2dq, and
what was rounded for conversions alone stays as it was.
"""

import re
from collections import defaultdict

_ROUND = re.compile(
    r"  (%\S+) = .*call <(\d+) x float> @llvm\.x86\.\w+\.round\.ps[.\d]*\(<\d+ x float> (%\S+), i32 0\)"
)
_CONVERSION = re.compile(r"  (%\S+) = fptosi <(\d+) x float> (%\S+) to <\d+ x i32>")
_JOIN = re.compile(r"  (%\S+) = shufflevector <\d+ x float> (%\S+), <\d+ x float> (%\S+|poison|undef), ")
_NAME = re.compile(r"%[-\w$.]+")


def rounded_at_once(code: str) -> str:
    """LLVM assembly in which conversions of rounded floats round themselves; without such, as it is."""
    lines = code.splitlines()
    rounds, joins, conversions = ({} for _ in range(3))  # the line of a result, and what it is made of
    readers = defaultdict(list)
    for at, line in enumerate(lines):
        if found := _ROUND.match(line):
            rounds[found[1]] = at, found[2], found[3]
        elif found := _JOIN.match(line):
            joins[found[1]] = at, [name for name in found.groups()[1:] if name.startswith("%")]
        elif found := _CONVERSION.match(line):
            conversions[found[1]] = at, found[2], found[3]
        result, _, rest = line.rpartition(" = ")
        for name in set(_NAME.findall(rest)):
            readers[name].append(result.strip())

    def is_rounded(name: str) -> bool:
        return name in rounds or (name in joins and all(map(is_rounded, joins[name][1])))

    whole = {result for result, (_, _, source) in conversions.items() if is_rounded(source)}

    def only_converted(name: str) -> bool:
        return all(reader in whole or (reader in joins and only_converted(reader)) for reader in readers[name])

    declared = set()
    for result in whole:
        at, lanes, source = conversions[result]
        declared.add(f"declare <{lanes} x i32> @llvm.lrint.v{lanes}i32.v{lanes}f32(<{lanes} x float>)")
        call = f"call <{lanes} x i32> @llvm.lrint.v{lanes}i32.v{lanes}f32(<{lanes} x float> {source})"
        lines[at] = f"  {result} = tail {call}"
    for result, (at, lanes, source) in rounds.items():
        if only_converted(result):
            lines[at] = f"  {result} = bitcast <{lanes} x float> {source} to <{lanes} x float>"
    return "\n".join((*lines, *sorted(declared), ""))
