"""The phases of training. All steps of a phase do the same work, so that one of them stands for it.

A rule names the phase of each step (`Method.phase`). Where it names none, its steps are compared in a few places of
training. Where their work differs, the stretch between two places is halved until the step is found at which it does;
if that gives no plan, the steps of each data pass are compared.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bench.api.method import Method
from bench.api.task import Batch, Progress
from bench.audit import passes
from bench.measure import flops

FEW = 3  # steps of a phase that are kept: two to make it ready, one to look at
MOST_LOOKS = 500  # at steps, before the search for phases is given up

PhaseOf = Callable[[Progress], Hashable]
Work = Callable[[Progress], Hashable]  # takes a step there, and says what it did


@dataclass(frozen=True)
class Course:
    """The steps of a training, known before they are taken."""

    total: int
    steps_per_epoch: int

    def at(self, step: int) -> Progress:
        return Progress(step, self.total, step // self.steps_per_epoch)


class Phase(NamedTuple):
    """steps: how many there are. places: the first FEW of them, the last one repeated where they are fewer."""

    steps: int
    places: tuple[Progress, ...]


def declares_phases(method: Method) -> bool:
    return type(method).phase is not Method.phase


def one_phase(progress: Progress) -> None:
    """The phase of every step of a rule that has but one."""


def phases(phase_of: PhaseOf, course: Course, taken: int | None = None, since: int = 0) -> dict[Hashable, Phase]:
    """The phases of steps `since` to `taken`, by default of all, in the order in which they begin."""
    n = course.total if taken is None else taken
    if phase_of is one_phase:
        return {None: _phase(n - since, [course.at(k) for k in range(since, min(n, since + FEW))])}
    steps, first = dict[Hashable, int](), dict[Hashable, list[Progress]]()
    for k in range(since, n):
        progress = course.at(k)
        name = phase_of(progress)
        steps[name] = steps.get(name, 0) + 1
        if steps[name] <= FEW:
            first.setdefault(name, []).append(progress)
    return {name: _phase(number, first[name]) for name, number in steps.items()}


def _phase(steps: int, places: list[Progress]) -> Phase:
    return Phase(steps, tuple([*places, *places[-1:] * FEW][:FEW]))


def phases_of(method: Method, work: Work, course: Course) -> PhaseOf | None:
    """The phase of each step: as the method declares it, or as `discovered` finds it. The method may be used up."""
    return method.phase if declares_phases(method) else discovered(work, course)


def discovered(work: Work, course: Course) -> PhaseOf | None:
    """The phases of a rule that declares none, by the work of its steps; None where they follow no simple plan.

    Phases that lie between two places with the same work are not seen. A first step may differ from all others.
    """
    last = course.total - 1
    seen: dict[int, Hashable] = {}

    def look(k: int) -> Hashable:
        if k not in seen:
            seen[k] = work(course.at(k))
        return seen[k]

    def edges(a: int, b: int) -> Iterable[int]:
        """First steps of phases that begin after step a, up to step b."""
        if look(a) == look(b) or len(seen) > MOST_LOOKS:
            return []
        middle = (a + b) // 2
        return [b] if b - a == 1 else [*edges(a, middle), *edges(middle, b)]

    places = sorted({min(k, last) for k in (1, 2, last // 4, last // 2 + 1, 3 * last // 4, last) if k > 0 or not last})
    if len({look(k) for k in places}) == 1:
        return one_phase
    starts = [0, *(k for a, b in pairwise(places) for k in edges(a, b))]
    names = [look(max(start, places[0])) for start in starts]
    for name, (start, end) in zip(names, pairwise([*starts, last + 1]), strict=True):
        inside = {(start + end) // 2, (2 * start + end) // 3, end - 1} - {0}
        if len(seen) > MOST_LOOKS or any(look(k) != name for k in inside):
            return _by_passes(look, course)
    parts = [start / course.total for start in starts]
    return lambda progress: names[bisect_right(parts, progress.step / progress.total_steps) - 1]


def _by_passes(look: Callable[[int], Hashable], course: Course) -> PhaseOf | None:
    """Where the steps of each data pass are alike, as of rules that train one block a pass."""
    starts = range(0, course.total, course.steps_per_epoch)
    if 2 * len(starts) > MOST_LOOKS:
        return None
    names = list[Hashable]()
    for start in starts:
        end = min(start + course.steps_per_epoch, course.total)
        places = {max(1, start), (start + end) // 2, end - 1}
        alike = {look(k) for k in places if start <= k < end}
        if len(alike) != 1 or (len(places) < 2 and len(starts) > 1):
            return None
        names += alike
    return lambda progress: names[progress.epoch]


def work_of(method: Method, batch: Batch, *, moved: bool = False) -> Work:
    """Looks at steps of the method on a batch: FLOPs, passes and, where asked for, which blocks move."""

    def work(progress: Progress) -> Hashable:
        before = _weights(method) if moved else []
        with flops.counted() as counted, passes.counted(method) as most:
            method.train_step(batch, progress)
        now = _weights(method) if moved else []
        return counted.flops, most(), tuple(not torch.equal(*pair) for pair in zip(before, now, strict=True))

    return work


def _weights(method: Method) -> list[Tensor]:
    """Those of each block, in one row."""
    return [
        torch.cat([torch.zeros(0, device=_device(block)), *(p.detach().flatten() for p in block.parameters())])
        for block in method.blocks()
    ]


def _device(block: torch.nn.Module) -> torch.device:
    return next((p.device for p in block.parameters()), torch.device("cpu"))
