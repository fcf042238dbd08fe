"""Whether steps of a phase are alike, and whether training goes on from the edges of phases as it would have."""

import copy
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from torch import Tensor

from bench.api.instrument import FIRST_STEPS
from bench.api.task import Progress
from bench.audit.phases import Course, phases, phases_of, work_of
from bench.testing.finding import require
from bench.testing.repeating import equal, tensors
from bench.testing.subject import Subject, Trainee, few_images, training_batch

STEPS, PER_PASS = 40, 4
COURSE = Course(100, 5)
MOST_EDGES = 6


def in_each_phase(subject: Subject, act: Callable[[Trainee, Progress], Any]) -> list[Any]:
    """What `act` gives with one trainee in each phase of its training, FIRST_STEPS after its beginning."""
    probed = subject.start().method
    phase_of = phases_of(probed, work_of(probed, few_images(), moved=True), COURSE)
    require(phase_of is not None, "steps differ without a plan; name the phase of each in phase()")
    assert phase_of is not None
    trainee, found = subject.start(), []
    for phase in phases(phase_of, COURSE).values():
        for place in phase.places[:FIRST_STEPS]:
            trainee.method.train_step(training_batch(0), place)
        found.append(act(trainee, phase.places[FIRST_STEPS]))
    return found


def check_phases(subject: Subject) -> None:
    """Steps of one phase do the same work, and a run goes on from the first step of each as if it had not stopped.

    The first step of training may do other work.
    """
    unbroken = subject.start(steps=STEPS, steps_per_pass=PER_PASS)
    edges = list(_edges(unbroken))
    saved: dict[int, Any] = {}
    reached: dict[int, dict[str, Tensor]] = {}
    seen: dict[Hashable, tuple[int, Hashable]] = {}
    for k in range(STEPS):
        if k in edges:
            saved[k] = copy.deepcopy(unbroken.state())
        name = unbroken.method.phase(unbroken.progress())
        work = work_of(unbroken.method, training_batch(k % 10))(unbroken.progress())
        unbroken.done += 1
        reached[k] = tensors(unbroken.method) if k - 1 in edges else {}
        if k:
            first, expected = seen.setdefault(name, (k, work))
            require(
                work == expected,
                f"steps {first} and {k} of {STEPS} differ in FLOPs or passes, in one phase; name phases in phase()",
            )
    for k in edges:
        resumed = subject.start(steps=STEPS, steps_per_pass=PER_PASS)
        resumed.resume(saved[k])
        for step in (k, k + 1):
            resumed.step(training_batch(step % 10))
        same = equal(tensors(resumed.method), reached[k + 1])
        require(same, f"a run restored before step {k} of {STEPS}, an edge of a schedule, continues differently")


def _edges(trainee: Trainee) -> Iterator[int]:
    """Steps at which a phase or a data pass begins, a few of them."""
    course = Course(STEPS, PER_PASS)
    names = [trainee.method.phase(course.at(k)) for k in range(STEPS)]
    found = [k for k in range(1, STEPS - 1) if names[k] != names[k - 1]]
    yield from sorted({PER_PASS, STEPS // 2, *found[: MOST_EDGES - 2]})
