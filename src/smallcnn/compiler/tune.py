"""Tunes kernels: times forms of every kernel on this machine and keeps the fastest.

    remembered(plan, context, threads) -> Tuned                    by earlier measurements
    search(plan, context, threads, stand, seconds, ...) -> Tuned   after up to `seconds` of new ones

The search goes in rounds. Each takes the most promising new forms, those of groups that take long and early in the
order of their choices, compiles as many as a quarter of the remaining time allows, and then times them by successive
halving: all forms of a group in a few runs, the better half in twice as many, and so on. Every measurement is kept at
once, so a killed search resumes where it stopped.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.forms import Form, Group, Kernel, Network
from smallcnn.compiler.timings import Timings
from smallcnn.model.tuning import SECONDS, Tuning
from smallcnn.system.cpu import cpu_name

MOST = 64
"""Choices tried of a kernel."""
_RUNS = 4
"""Runs of the first heat; each later one has twice as many."""
_COPIES, _COPY_BYTES = 8, 500_000_000
"""Copies of the network in one program, and bytes of their weights."""
_MARGIN = 0.99
"""A form replaces the plan's if it takes less than this share of its time: less is noise."""
_ENOUGH = 8
"""Choices measured from which the fastest is taken although the plan's was not: other estimates may have made it."""
_HOPELESS = 1.1
"""A way that takes this many times as long as the best one is not tuned further."""
_ROUND = 5.0
"""Seconds of compiling in a round, at least."""
_SHORT = 0.5
"""Seconds left for compiling that are not worth a round."""

Tell = Callable[[float, float], None]
Times = dict[Group, dict[Form, float]]


class Stand(Protocol):
    """Compiles forms and times them, see `stand.Stand`."""

    def compile(self, calls: Sequence[Call], enough: Callable[[], bool] = ...) -> None:
        """Compiles the kernels of the calls, in this order, until there are `enough`."""

    def has(self, call: Call) -> bool:
        """Whether the kernel of the call is compiled."""

    def time(self, networks: Sequence[Sequence[Call]], runs: int) -> Sequence[np.ndarray]:
        """Least nanoseconds of every call of every network, in `runs` runs."""


@dataclass(frozen=True)
class Tuned:
    """A plan in the fastest forms known; no `tuning` if nothing was measured. `complete`: no form is left to try."""

    plan: list[Call]
    tuning: Tuning | None = None
    complete: bool = False


def remembered(plan: Sequence[Call], context: Context, threads: int) -> Tuned:
    """The plan in the fastest forms measured on this processor before."""
    timings = Timings(context, threads)
    if not any(timings.of(timings.key(call.layers)) for call in plan if call.choice.tiles):
        return Tuned(list(plan))
    return _Knowledge(plan, context, threads, MOST).result(None)


def search(
    plan: Sequence[Call],
    context: Context,
    threads: int,
    stand: Stand,
    *,
    seconds: float = SECONDS,
    most: int = MOST,
    tell: Tell = lambda spent, gain: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """The plan in the fastest forms found in `seconds`, which begin when the forms known before are compiled.

    Of each kernel, the first `most` choices are tried. `tell` receives the seconds spent and the gain so far (see
    `Tuning`).
    """
    knowledge = _Knowledge(plan, context, threads, most)
    stand.compile([*knowledge.network.calls({}), *knowledge.network.calls(knowledge.best_forms())])
    start = clock()
    end, reserve = start + seconds, 0.0

    def told() -> None:
        tell(min(clock() - start, seconds), knowledge.gain())

    if knowledge.promising():
        knowledge.heat(stand, {}, _RUNS)
        reserve = 3 * (clock() - start)  # for the heats of a round
    while waiting := knowledge.promising():
        told()
        left = end - clock() - reserve
        if left < _SHORT:
            break
        until = clock() + min(left, max(left / 4, _ROUND))
        stand.compile([call for group, form in waiting for call in group.calls(form)], partial(_passed, clock, until))
        stand.compile(knowledge.network.calls(knowledge.best_forms()))  # of which kernels may be known from elsewhere
        entrants = knowledge.entrants(waiting, stand)
        if not entrants:
            break
        begun = clock()
        for heat in itertools.count():
            times = knowledge.heat(stand, entrants, _RUNS << heat)
            told()
            entrants = {group: better_half(forms) for group, forms in times.items() if len(forms) > 1 or not heat}
            if not entrants or clock() >= end:
                break
        reserve = max(reserve, clock() - begun)
    told()
    return replace(knowledge.result(seconds), complete=not knowledge.promising())


def _passed(clock: Callable[[], float], until: float) -> bool:
    return clock() >= until


def better_half(times: Mapping[Form, float]) -> list[Form]:
    """The forms that took least, half of them rounded up."""
    return sorted(times, key=times.__getitem__)[: (len(times) + 1) // 2]


class _Knowledge:
    """What is known of a plan's forms, and what is not."""

    def __init__(self, plan: Sequence[Call], context: Context, threads: int, most: int) -> None:
        self.threads, self.most = threads, most
        self.timings = Timings(context, threads)
        self.network = Network(plan, context, threads, self.timings.key)
        weights = sum(layer.weight.nbytes for call in plan for layer in call.layers if layer.weight is not None)
        self.copies = max(2, min(_COPIES, _COPY_BYTES // max(1, weights)))

    def times(self, kernel: Kernel) -> dict[Choice, float]:
        """Nanoseconds of the choices measured."""
        found = self.timings.of(kernel.key)
        return {choice: found[choice] for choice in kernel.choices if choice in found}

    def nanoseconds(self, group: Group, form: Form) -> float:
        """Time of a form: the sum of its kernels; infinite if one was not measured."""
        pairs = zip(group.ways[form.way], form.choices, strict=True)
        return sum(self.times(kernel).get(choice, math.inf) for kernel, choice in pairs)

    def fastest(self, group: Group, way: int) -> Form | None:
        """The fastest form of a way; None if a kernel of it was never measured."""
        times = [self.times(kernel) for kernel in group.ways[way]]
        return Form(way, tuple(min(one, key=one.__getitem__) for one in times)) if all(times) else None

    def best(self, group: Group) -> Form:
        """The fastest form known; the plan's, unless another is faster by more than noise."""
        planned = self.nanoseconds(group, group.planned)
        if math.isinf(planned) and sum(len(self.times(kernel)) for kernel in group.kernels) < _ENOUGH:
            return group.planned
        found = [form for way in range(len(group.ways)) if (form := self.fastest(group, way))]
        best = min(found, key=lambda form: self.nanoseconds(group, form), default=group.planned)
        return best if self.nanoseconds(group, best) < _MARGIN * planned else group.planned

    def best_forms(self) -> dict[Group, Form]:
        """The fastest form known of every group."""
        return {group: self.best(group) for group in self.network.groups}

    def gain(self) -> float:
        """By how much the groups measured are faster than planned."""
        planned = best = 0.0
        for group, form in self.best_forms().items():
            if math.isfinite(ns := self.nanoseconds(group, group.planned)):
                planned += len(group.occurrences) * ns
                best += len(group.occurrences) * self.nanoseconds(group, form)
        return planned / best - 1 if best else 0.0

    def result(self, seconds: float | None) -> Tuned:
        """The plan in the best forms, after a search of `seconds` or none."""
        known = {group: sum(len(self.times(kernel)) for kernel in group.kernels) for group in self.network.groups}
        space = {group: sum(min(self.most, len(k.choices)) for k in group.kernels) for group in self.network.groups}
        steps = [(call, group) for call, group in self.network.steps if group and space[group] > 1]
        tuning = Tuning(
            kernels=tuple(call.label for call, group in steps if known[group] > 1),
            of=len(steps),
            forms=sum(known.values()),
            space=sum(space.values()),
            gain=round(self.gain(), 4),
            threads=self.threads,
            processor=cpu_name(),
            model=self.network.context.model.name,
            seconds=seconds,
        )
        return Tuned(self.network.calls(self.best_forms()), tuning if tuning.kernels else None)

    def promising(self) -> list[tuple[Group, Form]]:
        """Forms to try next, most promising first: the time of their group divided by their place in its order."""
        found: list[tuple[float, Group, Form]] = []
        for group in self.network.groups:
            best = self.nanoseconds(group, self.best(group))
            share = len(group.occurrences) * (best if math.isfinite(best) else 1.0)
            mine = []
            for way in range(len(group.ways)):
                fastest = self.fastest(group, way)
                if fastest is None or self.nanoseconds(group, fastest) <= _HOPELESS * best:
                    mine += [
                        (share / (1 + place + bool(way)), group, form) for place, form in self._untried(group, way)
                    ]
            found += sorted(mine, key=lambda one: -one[0])[: max(1, self.copies - 2)]
        return [(group, form) for _, group, form in sorted(found, key=lambda one: -one[0])]

    def _untried(self, group: Group, way: int) -> Iterator[tuple[int, Form]]:
        """Forms of a way with choices not measured yet, and their place in the order; its kernels vary together."""
        kernels = group.ways[way]
        times = [self.times(kernel) for kernel in kernels]
        left = [
            [choice for choice in kernel.choices[: self.most] if choice not in known]
            for kernel, known in zip(kernels, times, strict=True)
        ]
        for i in range(max(map(len, left))):
            places, picked = [], []
            for kernel, known, new in zip(kernels, times, left, strict=True):
                if i < len(new):
                    places.append(kernel.choices.index(new[i]))
                picked.append(new[i] if i < len(new) else min(known, key=known.__getitem__, default=kernel.choices[0]))
            yield min(places), Form(way, tuple(picked))

    def entrants(self, waiting: Sequence[tuple[Group, Form]], stand: Stand) -> dict[Group, list[Form]]:
        """The forms that are compiled, by group, and the best one before them, unless that is the plan's."""
        found: dict[Group, list[Form]] = {}
        for group, form in waiting:
            if all(map(stand.has, group.calls(form))):
                found.setdefault(group, []).append(form)
        for group, forms in found.items():
            if (best := self.best(group)) != group.planned:
                forms.append(best)
        return found

    def heat(self, stand: Stand, entrants: Mapping[Group, Sequence[Form]], runs: int) -> Times:
        """Times the entrants and keeps their times; the plan's forms always run as well.

        A time is relative to that of the plan's form in the same runs, so that times of different heats compare.
        """
        copies = max(map(len, entrants.values()), default=0)
        forms = [{group: row[i] for group, row in entrants.items() if i < len(row)} for i in range(copies)]
        measured = stand.time([self.network.calls(one) for one in ({}, *forms)], runs)
        planned, *rest = map(self.network.by_kernel, ({}, *forms), measured)
        found: Times = {group: {} for group in entrants}
        kept: dict[str, dict[Choice, float]] = {}
        scales = {}
        for group, (ns,) in planned.items():
            (kernel,), (choice,) = group.ways[0], group.planned.choices
            scales[group] = self.times(kernel).get(choice, ns) / ns
            kept[kernel.key] = {choice: scales[group] * ns}
        for one, times in zip(forms, rest, strict=True):
            for group, form in one.items():
                scaled = scales[group] * times[group]
                found[group][form] = float(scaled.sum())
                for kernel, choice, ns in zip(group.ways[form.way], form.choices, scaled, strict=True):
                    kept.setdefault(kernel.key, {})[choice] = float(ns)
        for key, new in kept.items():
            self.timings.put(key, new)
        return found
