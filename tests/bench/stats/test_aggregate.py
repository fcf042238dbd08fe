"""Interquartile means and performance profiles against slow and obvious versions, and cases known in closed form."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.stats import interquartile_means, performance_band, performance_profile, scores_of


def runs_of(scores: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Runs that ended ok, by method and data set."""
    return pd.DataFrame(
        [
            {"method": m, "net": "mlp", "variant": "", "dataset": d, "seed": s, "status": "ok", "test_acc": acc}
            for m, datasets in scores.items()
            for d, several in datasets.items()
            for s, acc in enumerate(several)
        ]
    )


def slow_iqm(scores: list[float]) -> float:
    cut = len(scores) // 4
    kept = sorted(scores)[cut : len(scores) - cut]
    return sum(kept) / len(kept)


def test_the_lowest_and_the_highest_quarter_do_not_count() -> None:
    """Of 0.0, 0.5, 0.6, 0.9, 0.7, 0.8, 1.0, 0.1 the middle four are 0.5, 0.6, 0.7, 0.8."""
    (row,) = interquartile_means(runs_of({"a": {"d": [0.0, 0.5, 0.6, 0.9], "m": [0.7, 0.8, 1.0, 0.1]}})).to_dict(
        "records"
    )
    assert row["iqm"] == pytest.approx(0.65)
    assert (row["n_ok"], row["n_runs"]) == (8, 8)


def test_the_interval_is_that_of_a_slow_stratified_bootstrap() -> None:
    draws = np.random.default_rng(0)
    datasets = {d: list(draws.normal(mean, 0.02, 5)) for d, mean in (("d", 0.9), ("m", 0.8), ("k", 0.85))}
    (row,) = interquartile_means(runs_of({"a": datasets})).to_dict("records")
    drawn = sorted(
        slow_iqm([score for several in datasets.values() for score in draws.choice(several, len(several))])
        for _ in range(4000)
    )
    width = drawn[3900] - drawn[100]
    assert row["iqm"] == pytest.approx(slow_iqm([score for several in datasets.values() for score in several]))
    assert row["iqm_low"] == pytest.approx(drawn[100], abs=width / 15)
    assert row["iqm_high"] == pytest.approx(drawn[3900], abs=width / 15)


def test_runs_are_drawn_within_their_data_set() -> None:
    """Two data sets far apart, each without a spread: drawn together they would spread, drawn apart they cannot."""
    (row,) = interquartile_means(runs_of({"a": {"d": [0.9, 0.9], "m": [0.1, 0.1]}})).to_dict("records")
    assert (row["iqm_low"], row["iqm"], row["iqm_high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_two_values_in_closed_form() -> None:
    """Drawing 0 and 1 anew gives means 0, 0.5 and 1 with chances 1/4, 1/2, 1/4: the middle 95% hold all of them."""
    (row,) = interquartile_means(runs_of({"a": {"d": [0.0, 1.0]}})).to_dict("records")
    assert (row["iqm_low"], row["iqm"], row["iqm_high"]) == (0.0, 0.5, 1.0)


def test_every_row_stands_on_the_same_data_sets() -> None:
    """A row that lacks a data set has no mean; one run of a data set has no interval; failures are counted."""
    runs = runs_of({"all": {"d": [0.9, 0.9], "m": [0.8]}, "part": {"d": [0.9, 0.9]}})
    failed = runs.tail(1).assign(dataset="m", status="oom", test_acc=math.nan)
    means = interquartile_means(pd.concat([runs, failed])).set_index("method")
    assert means.loc["all", "iqm"] == pytest.approx(2.6 / 3)
    assert math.isnan(means.loc["all", "iqm_low"])
    assert math.isnan(means.loc["part", "iqm"])
    assert tuple(means.loc["part", ["n_ok", "n_runs"]]) == (2, 3)
    assert scores_of(runs).keys() == {("all", "mlp", "")}


def test_a_profile_is_the_mean_share_above_each_score() -> None:
    """At 0.5 two of four runs of one data set and one of two of the other lie above; at 0.95 one of four, none."""
    scores = [np.array([0.2, 0.5, 0.6, 1.0]), np.array([0.4, 0.9])]
    taus = np.array([0.0, 0.5, 0.95, 1.0])
    share = performance_profile(scores, taus)
    low, high = performance_band(scores, taus)
    assert share == pytest.approx([1, 0.5, 0.125, 0])
    assert (low <= share).all()
    assert (share <= high).all()
    assert (low[0], high[0], low[3], high[3]) == (1, 1, 0, 0)
    assert np.isnan(performance_band([np.array([0.5])], np.array([0.1]))[0]).all()
