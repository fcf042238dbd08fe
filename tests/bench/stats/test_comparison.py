"""Tests of differences: by hand, at their edges, and how often they err in simulated comparisons.

Simulated accuracies have the spread between and within seeds that small data sets show: 1 point and 0.7 points.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom, nct, t

from bench.stats.comparison import ALPHA, POWER, bonferroni, compare, conclusion, seeds_needed, simultaneous

MARGIN = 0.01
ONE_IN_A_THOUSAND = 1e-3


def conclusions(differences: np.ndarray) -> list[str]:
    """Of a family of comparisons. Shape: (rows, seeds)."""
    tests = [compare(row, MARGIN) for row in differences]
    differ, equivalent = bonferroni([of.p_differs for of in tests]), bonferroni([of.p_equivalent for of in tests])
    rows = zip(tests, differences.mean(axis=1), differ, equivalent, strict=True)
    return [conclusion(of.n, mean, of.p_differs, p, q, MARGIN) for of, mean, p, q in rows]


def claims_difference(text: str) -> bool:
    return text.startswith(("higher", "lower")) and "not significant" not in text and "no test" not in text


def at_most(n: int, rate: float) -> float:
    """The count that is passed once in a thousand times where each of n errs at this rate."""
    return float(binom.ppf(1 - ONE_IN_A_THOUSAND, n, rate))


def families(n: int, rows: int, seeds: int, *, shift: float = 0.0, images: int | None = None) -> Iterator[np.ndarray]:
    """Differences of `rows` methods, all as good as backprop plus `shift`, to one backprop. Shape: (rows, seeds)."""
    draws = np.random.default_rng(7)
    for _ in range(n):
        seed_effect = 0.9 + draws.normal(0, 0.01, seeds)
        reference = seed_effect + draws.normal(0, 0.007, seeds)
        others = seed_effect + shift + draws.normal(0, 0.007, (rows, seeds))
        if images is not None:
            reference, others = np.round(images * reference) / images, np.round(images * others) / images
        yield others - reference


def test_p_values_of_a_sample_worked_by_hand() -> None:
    """1, 2, 3 points: m = 2, s = 1, standard error 1 / sqrt(3), so t = 3.4641 and, to the margin of 1, 1.7321."""
    n, sd, p_differs, p_equivalent = compare([0.01, 0.02, 0.03], MARGIN)
    assert (n, sd) == (3, pytest.approx(0.01))
    assert p_differs == pytest.approx(2 * t.sf(2 * math.sqrt(3), 2))
    assert p_equivalent == pytest.approx(t.cdf(math.sqrt(3), 2))  # beyond the margin: far from equivalent


def test_equivalence_takes_the_nearer_side_of_the_margin() -> None:
    assert compare([0.004, 0.006], MARGIN).p_equivalent == pytest.approx(t.sf(5, 1))
    assert compare([-0.004, -0.006], MARGIN).p_equivalent == pytest.approx(t.sf(5, 1))


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, math.nan], [0.02, 0.02], [0.3 - 0.2, 0.9 - 0.8]])
def test_no_test_without_two_differences_and_a_spread(differences: list[float]) -> None:
    tested = compare(differences, MARGIN)
    assert math.isnan(tested.p_differs)
    assert math.isnan(tested.p_equivalent)


def test_equal_methods_are_equivalent() -> None:
    assert compare([0.0, 0.0], MARGIN)[1:] == (0.0, 1.0, 0.0)


def test_a_family_by_hand_and_what_was_not_tested_counts_for_nothing() -> None:
    assert bonferroni([0.04, math.nan, 0.01, 0.5]) == pytest.approx([0.12, math.nan, 0.03, 1], nan_ok=True)
    assert np.isnan(bonferroni([math.nan])).all()
    assert bonferroni([]).size == 0


def test_the_interval_excludes_zero_where_and_only_where_the_test_finds_a_difference() -> None:
    """With Holm's correction, or intervals of each row by itself, a verdict and the interval beside it disagree."""
    for family in families(100, 8, 4, shift=0.008):
        tests = [compare(row, MARGIN) for row in family]
        half = simultaneous([of.n for of in tests], [of.sd for of in tests], [len(family)] * len(family))
        found = bonferroni([of.p_differs for of in tests]) <= ALPHA
        assert ((np.abs(family.mean(axis=1)) > half) == found).all()


def test_intervals_of_a_family_hold_at_once() -> None:
    """All of ten contain what was planted, in 95 families of 100; each by itself would in 60."""
    missed = 0
    for family in families(400, 10, 5, shift=0.008):
        tests = [compare(row, MARGIN) for row in family]
        half = simultaneous([5] * 10, [of.sd for of in tests], [10] * 10)
        missed += bool((np.abs(family.mean(axis=1) - 0.008) > half).any())
    assert missed <= at_most(400, ALPHA)


def test_no_interval_of_one_seed_and_none_wide_without_a_spread() -> None:
    found = simultaneous([1, 3, 0], [math.nan, 0.0, math.nan], [2, 2, 2])
    assert found == pytest.approx([math.nan, 0, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("n", "mean", "p_alone", "p_differs", "p_equivalent", "words"),
    [
        (0, math.nan, math.nan, math.nan, math.nan, ""),
        (1, 0.5, math.nan, math.nan, math.nan, "needs 2 seeds"),
        (3, 0.02, 0.01, 0.05, 0.9, "higher"),
        (3, -0.02, 0.01, 0.01, 0.9, "lower"),
        (3, -0.002, 0.01, 0.01, 0.01, "lower by less than 1 point"),
        (3, -0.002, 0.1, 0.2, 0.05, "equivalent within 1 point"),
        (3, -0.49, 0.04, 0.051, 0.9, "lower, not significant after correction, 3 seeds"),
        (3, -0.49, 0.06, 0.12, 0.9, "lower, not significant, 3 seeds"),
        (2, 0.0, 1.0, 1.0, 0.9, "level, not significant, 2 seeds"),
        (3, 0.02, math.nan, math.nan, math.nan, "higher, all 3 seeds alike, which no test can judge"),
    ],
)
def test_conclusions_in_words(
    n: int, mean: float, p_alone: float, p_differs: float, p_equivalent: float, words: str
) -> None:
    assert conclusion(n, mean, p_alone, p_differs, p_equivalent, MARGIN) == words


def test_the_margin_is_part_of_the_words() -> None:
    assert conclusion(3, 0, 0.9, 0.9, 0.01, 0.005) == "equivalent within 0.5 points"


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_equal_methods_under_two_names_rarely_differ(seeds: int) -> None:
    found = [claims_difference(conclusions(family)[0]) for family in families(200, 1, seeds)]
    assert sum(found) <= at_most(200, ALPHA)


def test_few_test_images_make_no_difference() -> None:
    """100 images: accuracies are whole points, and two differences are often alike."""
    differences = list(families(400, 1, 2, images=100))
    alike = sum(bool(row[0, 0] == row[0, 1] != 0) for row in differences)
    assert alike > at_most(400, ALPHA)  # so many a t test without a spread would claim
    assert sum(claims_difference(conclusions(row)[0]) for row in differences) <= at_most(400, ALPHA)


def test_in_a_family_of_equal_methods_rarely_any_differs() -> None:
    claimed, uncorrected = 0, 0
    for family in families(200, 10, 5):
        claimed += any(map(claims_difference, conclusions(family)))
        uncorrected += any(compare(row, MARGIN).p_differs <= ALPHA for row in family)
    assert claimed <= at_most(200, ALPHA)
    assert uncorrected > at_most(200, ALPHA)  # the correction is what keeps it


@pytest.mark.parametrize("shift", [-MARGIN, MARGIN])
def test_methods_at_the_margin_are_rarely_held_to_be_equivalent(shift: float) -> None:
    found = [conclusions(family)[0].endswith("1 point") for family in families(400, 1, 5, shift=shift)]
    assert 0 < sum(found) <= at_most(400, ALPHA)


def test_equal_methods_are_mostly_found_equivalent_with_many_seeds() -> None:
    found = [conclusions(family)[0] == "equivalent within 1 point" for family in families(100, 1, 25)]
    assert sum(found) > 90


def test_a_planted_point_is_found_as_often_as_the_power_says() -> None:
    """Differences spread by sqrt(2) x 0.7 points, for which about ten seeds show one point."""
    n = int(seeds_needed(0.007 * math.sqrt(2), 0.01))
    found = [claims_difference(conclusions(family)[0]) for family in families(400, 1, n, shift=-0.01)]
    assert 8 <= n <= 12
    assert binom.ppf(ONE_IN_A_THOUSAND, 400, POWER) <= sum(found) <= at_most(400, POWER + 0.05)  # n is rounded up


def test_seeds_needed_is_the_first_count_with_that_power() -> None:
    """Against the power integrated from Student's noncentral distribution; one standard deviation takes 10 pairs."""

    def power(n: int, effect: float) -> float:
        edge = t.isf(ALPHA / 2, n - 1)
        return float(nct.sf(edge, n - 1, effect * math.sqrt(n)) + nct.cdf(-edge, n - 1, effect * math.sqrt(n)))

    assert seeds_needed(0.01, 0.01) == 10
    for effect in (0.2, 1.0, 3.0):
        n = int(seeds_needed(0.01, 0.01 * effect))
        assert power(n, effect) >= POWER > power(n - 1, effect)


def test_seeds_needed_at_its_edges() -> None:
    assert seeds_needed(1e-6, 0.5) == 2
    assert math.isnan(seeds_needed(math.nan, 0.01))
    assert math.isnan(seeds_needed(0.0, 0.01))
