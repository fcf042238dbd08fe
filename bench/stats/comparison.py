"""What paired differences allow to conclude: of one comparison, and of a family of them.

For n differences of mean m and standard deviation s, with T of Student's t distribution of n - 1 degrees of freedom:

    they differ         H0: E d = 0             p = 2 P(T > |m| sqrt(n) / s)
    they are equal      H0: |E d| >= margin     p = P(T > (margin - |m|) sqrt(n) / s)

The second is the two one-sided tests (TOST) of Schuirmann 1987. In a family of k comparisons p values are multiplied by
k (Bonferroni), and the interval of each difference has the level 1 - 0.05 / k, so that all hold at once with 95%:

    m +- t(1 - 0.05 / 2k; n - 1) s / sqrt(n)        excludes 0 where, and only where, k p <= 0.05

Step-down corrections (Holm's) find a little more, but have no such intervals: a verdict and the interval beside it
would disagree.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr, stdtrit
from statsmodels.stats.weightstats import DescrStatsW

from bench.record.primary import ACCURACY, Primary

ALPHA, POWER = 0.05, 0.8
NEEDS_MORE = "needs 2 seeds"
NO_SPREAD = 1e-9  # below which a standard deviation of accuracies is rounding


class Comparison(NamedTuple):
    """n differences, their standard deviation, and the p values of the two tests; NaN where there is none."""

    n: int
    sd: float
    p_differs: float
    p_equivalent: float


def compare(differences: Iterable[float], margin: float) -> Comparison:
    """Both tests on one sample; NaN values are left out.

    Fewer than two differences have no test. Nor have several that are all alike but not 0: few test images make
    accuracies coarse, so that a spread of 0 is luck, and a t test would take it for certainty. All of them 0 is what
    equal methods give.
    """
    sample = np.asarray(list(differences), dtype=float)
    sample = sample[~np.isnan(sample)]
    n = len(sample)
    if n < 2:
        return Comparison(n, math.nan, math.nan, math.nan)
    sd = float(sample.std(ddof=1))
    if sd < NO_SPREAD:
        alike = abs(sample.mean()) < NO_SPREAD
        return Comparison(n, 0.0, 1.0 if alike else math.nan, 0.0 if alike else math.nan)
    statistics = DescrStatsW(sample)
    return Comparison(n, sd, float(statistics.ttest_mean(0)[1]), float(statistics.ttost_mean(-margin, margin)[0]))


def bonferroni(p_values: ArrayLike) -> NDArray[np.float64]:
    """The p values corrected over their family: min(1, k p), with k the number of tests; NaN where there was none."""
    p = np.array(p_values, dtype=float)
    return np.minimum(1, np.count_nonzero(~np.isnan(p)) * p)


def simultaneous(n: ArrayLike, sd: ArrayLike, family: ArrayLike) -> NDArray[np.float64]:
    """Half-widths of intervals that hold at once, for n differences of this spread in a family of so many tests.

    NaN for fewer than two differences. Several without a spread have 0, and no test. Shape: (rows,).
    """
    n, sd, family = (np.asarray(of, dtype=float) for of in (n, sd, family))
    several = np.maximum(n, 2)
    half = stdtrit(several - 1, 1 - ALPHA / (2 * np.maximum(family, 1))) * sd / np.sqrt(several)
    return np.where(n > 1, half, np.nan)


Verdict = Literal["higher", "lower", "equivalent", "not significant"]


def verdict(p_differs: float, p_equivalent: float, mean: float) -> Verdict:
    """At a level of 5%, by corrected p values. Higher or lower may at once be equivalent: see `conclusion`."""
    if p_differs <= ALPHA:
        return "higher" if mean > 0 else "lower"
    return "equivalent" if p_equivalent <= ALPHA else "not significant"


def conclusion(
    n: int,
    mean: float,
    p_alone: float,
    p_differs: float,
    p_equivalent: float,
    margin: float,
    primary: Primary = ACCURACY,
    reference: str = "backprop's",
) -> str:
    """A comparison of n pairs in words: `higher`, `equivalent within 1 point`, `lower, not significant, 3 seeds`.

    A difference that is there and yet within the margin is `lower by less than 1 point`. p_alone: before correction,
    which a difference may pass that does not pass the corrected test, and is then said to. Empty without a pair.
    Where lower is better, as of RMSE, it says so: `lower (better)`. margin: as `Primary.size` takes it.
    """
    within = primary.size_words(margin, reference)
    if n < 2:
        return NEEDS_MORE if n else ""
    found = verdict(p_differs, p_equivalent, mean)
    if found == "equivalent":
        return f"equivalent within {within}"
    direction = primary.told("higher" if mean > 0 else "lower" if mean < 0 else "level")
    if found != "not significant":
        return f"{direction} by less than {within}" if p_equivalent <= ALPHA else direction
    if math.isnan(p_alone):
        return f"{direction}, all {n} seeds alike, which no test can judge"
    return f"{direction}, not significant{' after correction' if p_alone <= ALPHA else ''}, {n} seeds"


def seeds_needed(sd: float, difference: float) -> float:
    """The pairs of which a t test at a level of 5% finds this difference with a power of 80%. NaN without spread."""
    if math.isnan(sd) or sd < NO_SPREAD:
        return math.nan
    effect, n = difference / sd, 2
    while _power(effect, n) < POWER:
        n *= 2
    low = n // 2  # too few, but for the start
    while n - low > 1:
        between = (low + n) // 2
        low, n = (low, between) if _power(effect, between) >= POWER else (between, n)
    return n


def _power(effect: float, n: int) -> float:
    """P(|T| > t(1 - ALPHA / 2; n - 1)), T of the noncentral t distribution of n pairs of this effect (Cohen's d)."""
    apart, edge = effect * math.sqrt(n), float(stdtrit(n - 1, 1 - ALPHA / 2))
    other = float(nctdtr(n - 1, apart, -edge))  # where it is too small to be found, NaN
    return 1 - float(nctdtr(n - 1, apart, edge)) + (0.0 if math.isnan(other) else other)
