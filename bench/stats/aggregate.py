"""One figure per method over several data sets, and how its runs spread.

Paper: Agarwal, Schwarzer, Castro, Courville, Bellemare 2021, "Deep reinforcement learning at the edge of the
statistical precipice", NeurIPS (rliable). With x_mn the score of run n = 1..N_m on data set m = 1..M:

    interquartile mean      the mean of all x_mn without their lowest and their highest quarter
    performance profile     P(tau) = 1 / M sum_m 1 / N_m sum_n [x_mn > tau]
    interval                the middle 95% of either when the runs of each data set are drawn anew, with replacement
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap, trim_mean

from bench.api.column import Column
from bench.record.primary import ACCURACY, Primary
from bench.stats.counts import count_runs, finished

Scores = NDArray[np.float64]
RESAMPLES = 2000
ACROSS = ["method", "net", "variant"]

COUNTS = (
    Column("n_ok", "runs ok", "runs that ended well, on all data sets together", shown="page"),
    Column("n_runs", "attempted", "runs attempted, on all data sets together", shown="page"),
)


def iqm_of(primary: Primary) -> tuple[Column, ...]:
    """The columns of `interquartile_means`."""
    column = primary.column
    unit = f", {primary.unit}" if primary.unit else ""
    shape: dict[str, Any] = {"scale": column.scale, "decimals": column.decimals, "shown": "page"}
    return (
        *COUNTS,
        Column(
            "iqm",
            f"IQM{unit}",
            f"interquartile mean: the mean test {primary.word} of the runs on all data sets without the lowest and the "
            "highest quarter; missing for a row without a good run on each of them",
            **shape,
        ),
        Column(
            "iqm_low",
            f"from{unit}",
            "where its 95% interval begins, by a bootstrap that draws the runs of each data set anew; from few seeds "
            "it is rather too narrow",
            **shape,
        ),
        Column("iqm_high", f"to{unit}", "where that interval ends", **shape),
    )


def scores_of(runs: pd.DataFrame, primary: Primary = ACCURACY) -> dict[tuple[str, str, str], list[Scores]]:
    """The primary metric of the runs of each (method, net, variant), a data set each; only rows with all of them."""
    ok = finished(runs).dropna(subset=[primary.test])
    datasets = ok["dataset"].nunique()
    found: dict[tuple[str, str, str], list[Scores]] = {}
    for (method, net, variant, _), group in ok.groupby([*ACROSS, "dataset"], sort=False):
        found.setdefault((str(method), str(net), str(variant)), []).append(group[primary.test].to_numpy(dtype=float))
    return {row: scores for row, scores in found.items() if len(scores) == datasets}


def interquartile_means(runs: pd.DataFrame, primary: Primary = ACCURACY) -> pd.DataFrame:
    """Per (method, net, variant): the columns of `iqm_of`, over all data sets on which a run ended well.

    runs: of this one primary metric.
    """
    counts = count_runs(runs).groupby(ACROSS, sort=False, as_index=False)[["n_ok", "n_runs"]].sum()
    lines = [(*row, _iqm(*scores), *interval(_iqm, scores)) for row, scores in scores_of(runs, primary).items()]
    return counts.merge(pd.DataFrame(lines, columns=[*ACROSS, "iqm", "iqm_low", "iqm_high"]), on=ACROSS, how="left")


def performance_profile(scores: Sequence[Scores], taus: Scores) -> Scores:
    """P(tau) at each tau. Shape: (len(taus),)."""
    return _above(taus, *scores)


def performance_band(scores: Sequence[Scores], taus: Scores) -> tuple[Scores, Scores]:
    """Where the interval of P(tau) begins and ends, at each tau by itself."""
    return interval(partial(_above, taus), scores)


def interval(statistic: Callable[..., Scores], scores: Sequence[Scores]) -> tuple[Scores, Scores]:
    """95% by a stratified percentile bootstrap, of fixed seed. NaN where a data set has a single run."""
    if min(map(len, scores)) < 2:
        nothing = np.full_like(statistic(*scores), np.nan)
        return nothing, nothing
    drawn = bootstrap(tuple(scores), statistic, method="percentile", n_resamples=RESAMPLES, rng=0).confidence_interval
    return np.asarray(drawn.low), np.asarray(drawn.high)


def _iqm(*scores: Scores, axis: int = -1) -> Scores:
    return np.asarray(trim_mean(np.concatenate(scores, axis=axis), 0.25, axis=axis))


def _above(taus: Scores, *scores: Scores, axis: int = -1) -> Scores:
    return np.stack([np.mean([(of > tau).mean(axis=axis) for of in scores], axis=0) for tau in taus])
