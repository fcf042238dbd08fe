"""Differences to backprop, seed by seed, and what they allow to conclude."""

import pandas as pd

from bench.api.column import Column
from bench.stats.comparison import compare, conclusion, holm, points, seeds_needed
from bench.stats.counts import ROW
from bench.stats.intervals import t_interval
from bench.stats.twins import REFERENCE, twins

DETECTABLE = 0.005  # the difference for which seeds are counted

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
CONCLUSION = Column(
    "conclusion",
    "conclusion",
    "what the difference to backprop allows to say, at a level of 5% over all rows of the data set (Holm): higher or "
    "lower by a paired t test, equivalent by two one-sided tests (TOST), else undecided; one seed allows none",
    shown="page",
    text=True,
)
TESTS = (
    Column("n_pairs", "pairs", "seeds that ended well with both methods", shown="page"),
    TEST_ACC_DIFF,
    Column("test_acc_diff_sd", "spread of differences, points", "their standard deviation over seeds", scale=100),
    Column("p_differs", "p of one, differs", "p value of the paired t test of no difference, by itself"),
    Column(
        "p_differs_holm",
        "p, differs",
        "p value of the paired t test of no difference, corrected by Holm's method for the rows of the data set",
        shown="page",
    ),
    Column("p_equivalent", "p of one, equivalent", "p value of the two one-sided tests, by themselves"),
    Column(
        "p_equivalent_holm",
        "p, equivalent",
        "p value of the two one-sided tests of a difference beyond the margin, corrected likewise",
        shown="page",
    ),
    CONCLUSION,
    Column(
        "seeds_needed",
        f"seeds for {points(DETECTABLE)}",
        f"how many seeds a paired t test by itself needs to see {points(DETECTABLE)} at a level of 5% with a power of "
        "80%, if differences spread as they do here; a rough figure where that is known from few seeds",
        shown="page",
    ),
)


def paired_differences(runs: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Per row of another method: its test accuracy minus that of its backprop twin, seed by seed.

    The twin shares data set, net, protocol and seed, hence initial weights and batch order, so the spread that both
    have in common cancels. Columns: `twin_variant` (missing where backprop did not run, or in several forms
    with none nearest), `test_acc_diff_mean` and `test_acc_diff_ci95` (fractions; the latter the half-width of the
    t-interval over pairs), and those of TESTS. A family of tests is the rows of one data set: its table is read as a
    whole, and another data set beside it changes no conclusion. margin: a fraction.
    """
    lines, twin = [], twins(runs)
    for row, group in runs.groupby(ROW, sort=False):
        if row[1] == REFERENCE:
            continue
        nearest, of_twin = twin(group)
        pairs = _accuracy_by_seed(group) - _accuracy_by_seed(of_twin)
        interval, tests = t_interval(pairs), compare(pairs, margin)
        lines.append(
            (*row, nearest, interval.mean, interval.half_width, *tests, seeds_needed(tests.sd, DETECTABLE)),
        )
    frame = pd.DataFrame(
        lines,
        columns=[*ROW, "twin_variant", "test_acc_diff_mean", "test_acc_diff_ci95", *_TESTED, "seeds_needed"],
    )
    families = frame.groupby("dataset")
    for name in ("p_differs", "p_equivalent"):
        frame[f"{name}_holm"] = families[name].transform(lambda p_values: holm(p_values))
    judged = (frame[name] for name in ("n_pairs", "test_acc_diff_mean", "p_differs_holm", "p_equivalent_holm"))
    frame["conclusion"] = [conclusion(n, mean, p, q, margin) for n, mean, p, q in zip(*judged, strict=True)]
    return frame


_TESTED = ["n_pairs", "test_acc_diff_sd", "p_differs", "p_equivalent"]  # as in Comparison


def _accuracy_by_seed(runs: pd.DataFrame) -> "pd.Series[float]":
    ok = runs["status"].to_numpy() == "ok"
    accuracies: pd.Series[float] = runs["test_acc"][ok].set_axis(runs["seed"][ok])
    assert accuracies.index.is_unique, "a row holds each seed once"
    return accuracies
