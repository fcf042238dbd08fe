"""Intervals over seeds."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Interval(NamedTuple):
    """Mean and half-width of a 95% interval, in the unit of the sample, over n values."""

    mean: float
    half_width: float
    n: int


def t_interval(values: Iterable[float]) -> Interval:
    """Student's 95% interval: mean ± t(0.975; n - 1) s / sqrt(n), with s the sample's standard deviation.

    NaN values are left out. One value has a mean and a NaN half-width; none has NaN for both.
    """
    sample = np.asarray(list(values), dtype=float)
    sample = sample[~np.isnan(sample)]
    n = len(sample)
    if n == 0:
        return Interval(np.nan, np.nan, 0)
    if n == 1:
        return Interval(float(sample[0]), np.nan, 1)
    half_width = stdtrit(n - 1, 0.975) * sample.std(ddof=1) / np.sqrt(n)
    return Interval(float(sample.mean()), float(half_width), n)
