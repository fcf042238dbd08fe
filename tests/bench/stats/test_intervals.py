"""Intervals against samples worked by hand."""

import math

import pytest

from bench.stats import t_interval


def test_interval_of_a_sample_worked_by_hand() -> None:
    """1..5: s^2 = 10/4, and Student's table has t(0.975; 4) = 2.776."""
    mean, half_width, n = t_interval([1, 2, 3, 4, 5])
    assert (mean, n) == (3, 5)
    assert half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=2e-4)


def test_two_values_pay_for_their_one_degree_of_freedom() -> None:
    """0 and 2: s = sqrt(2), so the half-width is t(0.975; 1) itself, which is tan(0.475 pi)."""
    assert t_interval([0, 2]).half_width == pytest.approx(math.tan(0.475 * math.pi))


@pytest.mark.parametrize(("values", "mean", "n"), [([], math.nan, 0), ([0.5], 0.5, 1), ([math.nan, 0.5], 0.5, 1)])
def test_fewer_than_two_values_have_no_interval(values: list[float], mean: float, n: int) -> None:
    interval = t_interval(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.half_width)
    assert interval.n == n
