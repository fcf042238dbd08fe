"""The phases of training: those that a rule declares, those that are found, and those that follow no plan."""

from collections.abc import Hashable

import pytest

from bench import Progress
from bench.audit.phases import Course, discovered, one_phase, phases

COURSE = Course(total=97, steps_per_epoch=10)


def lengths(phase_of: object) -> dict[Hashable, int]:
    assert callable(phase_of)
    return {name: phase.steps for name, phase in phases(phase_of, COURSE).items()}


@pytest.mark.parametrize("edges", [(1,), (48,), (49,), (96,), (10, 20, 30), (24, 25, 26), (33, 60)])
def test_edges_are_found_to_the_step(edges: tuple[int, ...]) -> None:
    def work(progress: Progress) -> int:
        return sum(progress.step >= edge for edge in edges)

    found = discovered(work, COURSE)
    if edges == (1,):  # a first step may differ from all others
        assert found is one_phase
    else:
        assert lengths(found) == lengths(work)


def test_phases_that_come_again_are_one() -> None:
    found = discovered(lambda progress: 30 <= progress.step < 70, COURSE)
    assert lengths(found) == {False: 57, True: 40}


def test_a_rule_whose_steps_are_all_alike_has_one_phase_and_is_looked_at_a_few_times() -> None:
    looks: list[int] = []
    assert discovered(lambda progress: looks.append(progress.step), COURSE) is one_phase
    assert len(looks) <= 6


def test_blocks_that_are_trained_in_turn_by_data_passes_are_found() -> None:
    def work(progress: Progress) -> int:
        return progress.epoch % 3

    assert lengths(discovered(work, COURSE)) == lengths(work)


def test_steps_without_a_plan_are_said_to_have_none() -> None:
    assert discovered(lambda progress: progress.step % 2, COURSE) is None


@pytest.mark.parametrize("total", [1, 2, 3])
def test_short_trainings(total: int) -> None:
    assert discovered(lambda progress: 0, Course(total, 10)) is one_phase
    (only,) = phases(one_phase, Course(total, 10)).values()
    assert only.steps == total
    assert [place.step for place in only.places] == [min(k, total - 1) for k in range(3)]


def test_places_of_a_phase_are_its_first_steps_of_the_whole_course() -> None:
    found = phases(lambda progress: progress.epoch % 2, COURSE, taken=12)
    assert {name: (phase.steps, [p.step for p in phase.places]) for name, phase in found.items()} == {
        0: (10, [0, 1, 2]),
        1: (2, [10, 11, 11]),
    }
    assert found[1].places[0] == Progress(10, 97, 1)
