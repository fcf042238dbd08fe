"""Intervals over seeds, paired differences to backprop, and counts of what failed.

A row of a table is one (data set, method, net, variant). Its sample is the seeds whose run ended `ok`; those
that did not are counted beside it, so that survivors are never averaged silently.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

ROW = ["dataset", "method", "net", "variant"]
REFERENCE = "backprop"


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


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that ended `ok`: the only ones that enter an average."""
    return runs[runs["status"] == "ok"]


def count_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Per row: `n_ok` of `n_runs`, and `failures` in words, as in `1 oom, 2 diverged`."""
    counts = [
        (*row, len(finished(group)), len(group), _failures(group["status"]))
        for row, group in runs.groupby(ROW, sort=False)
    ]
    return pd.DataFrame(counts, columns=[*ROW, "n_ok", "n_runs", "failures"])


def _failures(status: "pd.Series[str]") -> str:
    failed = status[status != "ok"].value_counts().sort_index()
    return ", ".join(f"{n} {name}" for name, n in failed.items())


def paired_differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Per row of another method: its test accuracy minus that of its backprop twin, seed by seed.

    The twin shares data set, net and seed, hence initial weights and batch order, so the spread that both
    have in common cancels. Columns: `twin_variant` (missing where backprop did not run, or in several forms
    with none nearest), `n_pairs`, `test_acc_diff_mean` and `test_acc_diff_ci95` (fractions; the latter the
    half-width of the t-interval over pairs).
    """
    differences = []
    for row, group in runs.groupby(ROW, sort=False):
        dataset, method, net, variant = row
        if method == REFERENCE:
            continue
        on_net = (runs["method"] == REFERENCE) & (runs["dataset"] == dataset) & (runs["net"] == net)
        twins = runs[on_net]
        twin_variant = _twin_variant(str(variant), set(twins["variant"]))
        twin = twins[twins["variant"] == twin_variant]
        interval = t_interval(_accuracy_by_seed(group) - _accuracy_by_seed(twin))
        differences.append((*row, twin_variant, interval.n, interval.mean, interval.half_width))
    columns = [*ROW, "twin_variant", "n_pairs", "test_acc_diff_mean", "test_acc_diff_ci95"]
    return pd.DataFrame(differences, columns=columns)


def _twin_variant(variant: str, available: Collection[str]) -> str | None:
    """Backprop under the same settings, else under its defaults, else in the one form that ran."""
    if variant in available:
        return variant
    if "" in available:
        return ""
    return next(iter(available)) if len(available) == 1 else None


def _accuracy_by_seed(runs: pd.DataFrame) -> "pd.Series[float]":
    # a seed that ran twice (on two devices, say) is still one pair
    return finished(runs).groupby("seed")["test_acc"].mean()
