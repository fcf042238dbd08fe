"""Differences to backprop, seed by seed."""

from collections.abc import Collection

import pandas as pd

from bench.api.column import Column
from bench.stats.counts import ROW, finished
from bench.stats.intervals import t_interval

REFERENCE = "backprop"

TEST_ACC_DIFF = Column(
    "test_acc_diff",
    "vs backprop, points",
    "test accuracy minus that of backprop on the same net, data, initial weights and batch order, seed by seed",
    scale=100,
    decimals=2,
    better="higher",
    interval=True,
    shown="terminal",
)


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
