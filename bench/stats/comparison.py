"""What paired differences allow to conclude: of one comparison, and of a family of them.

For n differences of mean m and standard deviation s, with T of Student's t distribution of n - 1 degrees of freedom:

    they differ         H0: E d = 0             p = 2 P(T > |m| sqrt(n) / s)
    they are equal      H0: |E d| >= margin     p = P(T > (margin - |m|) sqrt(n) / s)

The second is the two one-sided tests (TOST) of Schuirmann 1987. Holm 1979 corrects each for the size of the family.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr, stdtrit
from statsmodels.stats.weightstats import DescrStatsW

ALPHA, POWER = 0.05, 0.8
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


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """The p values corrected over their family, NaN where there was no test, which is no member of it.

    The k-th smallest of n becomes min(1, max_{j <= k} (n - j + 1) p_j). As statsmodels' multipletests has it, which
    collects garbage at every call: a fifth of a second where torch is loaded.
    """
    corrected = np.array(p_values, dtype=float)
    n = np.count_nonzero(~np.isnan(corrected))
    rising = np.argsort(corrected)[:n]  # NaN stands last
    corrected[rising] = np.minimum(1, np.maximum.accumulate(np.arange(n, 0, -1) * corrected[rising]))
    return corrected


def points(fraction: float) -> str:
    """As in `1 point`, `0.5 points`."""
    return f"{100 * fraction:g} point{'' if math.isclose(fraction, 0.01) else 's'}"


def conclusion(n: int, mean: float, p_differs: float, p_equivalent: float, margin: float) -> str:
    """A comparison in words, at a level of 5%: `higher`, `lower`, `equivalent within 1 point`, `undecided`.

    A difference that is there and yet within the margin is `lower by less than 1 point`. Empty without a pair.
    """
    if n < 2:
        return "none (n=1)" if n else ""
    direction = "higher" if mean > 0 else "lower"
    if p_differs <= ALPHA:
        return f"{direction} by less than {points(margin)}" if p_equivalent <= ALPHA else direction
    return f"equivalent within {points(margin)}" if p_equivalent <= ALPHA else "undecided"


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
