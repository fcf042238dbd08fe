"""Whether steps of a phase are alike, and whether training goes on from the edges of phases as it would have."""

from collections.abc import Callable
from typing import Any

from bench.api.instrument import FIRST_STEPS
from bench.api.task import Progress
from bench.audit.phases import Course, phases, phases_of, work_of
from bench.testing.finding import require
from bench.testing.subject import Subject, Trainee, few_images, training_batch

COURSE = Course(100, 5, 20)


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
