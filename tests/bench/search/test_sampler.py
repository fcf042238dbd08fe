"""Where to look next: evenly at first, then where it was good; a pure function of what was tried."""

import numpy as np
import pytest

from bench.experiment.ranges import Range, Space
from bench.search.sampler import Point, guided, spread

LR: Space = {"lr": Range("log", 1e-5, 1e-1)}
MIXED: Space = {**LR, "n": Range("int", 1, 4), "mode": Range("choice", 0, 1, ("a", "b"))}


def test_a_spread_of_eight_has_one_point_in_each_eighth() -> None:
    for seed in range(5):
        places = sorted(LR["lr"].place(point["lr"]) for point in spread(LR, [], 8, seed))
        assert [int(8 * u) for u in places] == list(range(8))


def test_every_setting_is_spread() -> None:
    points = spread(MIXED, [], 8, 0)
    assert np.bincount([point["n"] for point in points]).tolist() == [0, 2, 2, 2, 2]
    assert sorted(point["mode"] for point in points) == [*"aaaabbbb"]


def test_the_same_seed_asks_for_the_same_and_another_for_others() -> None:
    tried = [({"lr": 1e-4}, 0.2), ({"lr": 1e-2}, 0.9)]
    assert spread(LR, [], 6, 1) == spread(LR, [], 6, 1) != spread(LR, [], 6, 2)
    assert guided(LR, tried, 3, 1) == guided(LR, tried, 3, 1) != guided(LR, tried, 3, 2)


def test_nothing_is_asked_for_twice_and_a_small_space_runs_out() -> None:
    small: Space = {"n": Range("int", 1, 3), "mode": Range("choice", 0, 1, ("a", "b"))}
    tried: list[Point] = [{"n": 1, "mode": "a"}]
    assert len(spread(small, tried, 6, 0)) == 5
    later = guided(small, [(point, 0.5) for point in tried], 6, 0)
    everything = [*tried, *later]
    assert len(later) <= 5
    assert all(everything.count(point) == 1 for point in everything)


def test_guided_points_gather_around_the_best() -> None:
    """Of points that are spread evenly over the four decades half would be within a decade of the middle."""
    distances = []
    for seed in range(10):
        tried = [(point, 1 - abs(np.log10(point["lr"] / 1e-3)) / 4) for point in spread(LR, [], 24, seed)]
        distances += [abs(np.log10(point["lr"] / 1e-3)) for point in guided(LR, tried, 2, seed)]
    assert np.median(distances) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_all_values_are_within_their_ranges(seed: int) -> None:
    tried = [(point, 0.1 * k) for k, point in enumerate(spread(MIXED, [], 6, seed))]
    for point in [*(p for p, _ in tried), *guided(MIXED, tried, 6, seed)]:
        assert 1e-5 <= point["lr"] <= 1e-1
        assert point["n"] in range(1, 5)
        assert point["mode"] in ("a", "b")
