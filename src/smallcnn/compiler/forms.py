"""The forms that a plan may take: for each group of layers its ways, and for each kernel of a way its choices.

A group is what the plan makes one kernel. A way cuts its layers into one or more kernels, a form of a way is a choice
for each of them. The first way and the first choice are the plan's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smallcnn.compiler import calls
from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.layers import Layer
from smallcnn.compiler.plan import Groups
from smallcnn.compiler.space import choices

_WAYS = 3
"""Ways of a group besides the plan's."""

Key = Callable[[Sequence[Layer]], str]


@dataclass(frozen=True)
class Form:
    """The number of a group's way, and a choice for each of its kernels."""

    way: int
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Kernel:
    """Layers `start` to `end` of a group. Equal kernels have one `key`."""

    start: int
    end: int
    key: str
    choices: tuple[Choice, ...]


@dataclass(eq=False)
class Group:
    """Layers that the plan makes one kernel, as often as they occur in the network."""

    context: Context
    ways: tuple[tuple[Kernel, ...], ...]
    occurrences: list[tuple[Layer, ...]] = field(default_factory=list)
    _made: dict[tuple[int, Form], list[Call]] = field(default_factory=dict)

    @property
    def planned(self) -> Form:
        """The plan's own form."""
        return Form(0, tuple(kernel.choices[0] for kernel in self.ways[0]))

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels of all ways."""
        return list({kernel.key: kernel for way in self.ways for kernel in way}.values())

    def calls(self, form: Form, occurrence: int = 0) -> list[Call]:
        """The calls that compute an occurrence in that form."""
        if (occurrence, form) not in self._made:
            layers = self.occurrences[occurrence]
            self._made[occurrence, form] = [
                calls.call(layers[kernel.start : kernel.end], choice, self.context)
                for kernel, choice in zip(self.ways[form.way], form.choices, strict=True)
            ]
        return self._made[occurrence, form]


class Network:
    """A plan by its groups. `key` tells whether two kernels are equal."""

    def __init__(self, plan: Sequence[Call], context: Context, threads: int, key: Key) -> None:
        self.context, self.threads, self.key = context, threads, key
        known: dict[str, Group] = {}
        self.steps: list[tuple[Call, Group | None]] = []
        for call in plan:
            group = None
            if call.choice.tiles:
                name = key(call.layers)
                group = known[name] = known.get(name) or self._group(call)
                group.occurrences.append(call.layers)
            self.steps.append((call, group))
        self.groups = list(known.values())

    def calls(self, forms: Mapping[Group, Form]) -> list[Call]:
        """The whole network in these forms; groups without one as planned."""
        found: list[Call] = []
        seen = dict.fromkeys(self.groups, 0)
        for call, group in self.steps:
            if group is None:
                found.append(call)
            else:
                found += group.calls(forms.get(group, group.planned), seen[group])
                seen[group] += 1
        return found

    def by_kernel(self, forms: Mapping[Group, Form], times: np.ndarray) -> dict[Group, np.ndarray]:
        """Times of `calls(forms)` for each kernel of each group: means over its occurrences."""
        sums = {group: np.zeros(len(group.ways[forms.get(group, group.planned).way])) for group in self.groups}
        start = 0
        for _, group in self.steps:
            count = len(sums[group]) if group else 1
            if group:
                sums[group] += times[start : start + count] / len(group.occurrences)
            start += count
        return sums

    def _group(self, call: Call) -> Group:
        cuts = _cuts(call.layers, self.context, self.threads)
        planned = self._kernel(call.layers, 0, len(call.layers), call.choice)
        others = [tuple(self._kernel(call.layers, *span) for span in cut) for cut in cuts]
        return Group(self.context, ((planned,), *others))

    def _kernel(self, layers: Sequence[Layer], start: int, end: int, *planned: Choice) -> Kernel:
        layers = layers[start:end]
        found = choices(layers, self.context, self.threads)
        return Kernel(start, end, self.key(layers), tuple(dict.fromkeys([*planned, *found])))


def _cuts(layers: Sequence[Layer], context: Context, threads: int) -> list[tuple[tuple[int, int], ...]]:
    """The quickest ways, by estimate, to cut layers into more kernels than one, as starts and ends."""
    groups, estimator = Groups(layers, (), context), context.estimator(threads)
    spans = [(start, start + len(group)) for start in range(len(layers)) for group in groups.at(start)]
    times = {}
    for start, end in spans:
        kernel = layers[start:end]
        times[start, end] = estimator.kernel(kernel, choices(kernel, context, threads, 1)[0])
    cuts: dict[int, list[tuple[tuple[int, int], ...]]] = {len(layers): [()]}
    for start in reversed(range(len(layers))):
        found = [(span, *rest) for span in spans if span[0] == start for rest in cuts[span[1]]]
        cuts[start] = sorted(found, key=lambda cut: sum(times[span] for span in cut))[: _WAYS + 1]
    return [cut for cut in cuts[0] if len(cut) > 1][:_WAYS]
