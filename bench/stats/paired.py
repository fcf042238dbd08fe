"""Differences to backprop, seed by seed, and what they allow to conclude."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api.column import Column
from bench.stats.comparison import bonferroni, compare, conclusion, points, seeds_needed, simultaneous, verdict
from bench.stats.counts import ROW
from bench.stats.twins import REFERENCE, twins

if TYPE_CHECKING:
    from pandas.api.typing import DataFrameGroupBy

DETECTABLE = 0.005  # the difference for which seeds are counted

TEST_ACC_DIFF = Column(
    "test_acc_diff",
    "vs backprop, points",
    "test accuracy minus that of backprop on the same net, data, initial weights and batch order, seed by seed; the "
    "95% intervals of all rows of a data set hold at once (Bonferroni), and agree with the conclusion",
    scale=100,
    decimals=2,
    better="higher",
    interval=True,
    shown="terminal",
)
CONCLUSION = Column(
    "conclusion",
    "conclusion",
    "what the difference to backprop allows to say, at a level of 5% over all rows of the data set (Bonferroni): "
    "higher or lower by a paired t test, equivalent by two one-sided tests (TOST), else not significant; one seed "
    "allows none",
    shown="page",
    text=True,
)
TESTS = (
    Column("n_pairs", "pairs", "seeds that ended well with both methods", shown="page"),
    TEST_ACC_DIFF,
    Column("test_acc_diff_sd", "spread of differences, points", "their standard deviation over seeds", scale=100),
    Column("p_differs", "p of one, differs", "p value of the paired t test of no difference, by itself"),
    Column(
        "p_differs_corrected",
        "p, differs",
        "p value of the paired t test of no difference, times the number of rows of the data set (Bonferroni)",
        shown="page",
    ),
    Column("p_equivalent", "p of one, equivalent", "p value of the two one-sided tests, by themselves"),
    Column(
        "p_equivalent_corrected",
        "p, equivalent",
        "p value of the two one-sided tests of a difference beyond the margin, corrected likewise",
        shown="page",
    ),
    CONCLUSION,
    Column("verdict", "verdict", "the conclusion in a word: higher, lower, equivalent, not significant", text=True),
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
    have in common cancels. Columns: `twin_variant` (missing where backprop did not run, or in several forms with none
    nearest), `test_acc_diff_mean` and `test_acc_diff_ci95` (fractions; the latter the half-width of an interval that
    holds at once with the others), and those of TESTS. A family of tests is the rows of one data set: its table is read
    as a whole, and another data set beside it changes no conclusion. margin: a fraction.
    """
    lines, twin = [], twins(runs)
    for row, group in runs.groupby(ROW, sort=False):
        if row[1] == REFERENCE:
            continue
        nearest, of_twin = twin(group)
        pairs = accuracy_by_seed(group) - accuracy_by_seed(of_twin)
        tests = compare(pairs, margin)
        lines.append((*row, nearest, pairs.mean(), *tests, seeds_needed(tests.sd, DETECTABLE)))
    frame = pd.DataFrame(lines, columns=[*ROW, "twin_variant", "test_acc_diff_mean", *_TESTED, "seeds_needed"])
    return judged(frame, "test_acc_diff", margin, frame.groupby("dataset"))


def judged(frame: pd.DataFrame, name: str, margin: float, families: "DataFrameGroupBy[Any, Any]") -> pd.DataFrame:
    """The frame of differences NAME_mean with NAME_ci95, corrected p values, `verdict` and `conclusion` of each.

    families: the frame's rows that are tested together.
    """
    for test in ("p_differs", "p_equivalent"):
        frame[f"{test}_corrected"] = families[test].transform(lambda p_values: bonferroni(p_values))
    size = families["p_differs"].transform("count")
    frame[f"{name}_ci95"] = simultaneous(frame["n_pairs"], frame[f"{name}_sd"], size)
    columns = ("n_pairs", f"{name}_mean", "p_differs", "p_differs_corrected", "p_equivalent_corrected")
    rows = list(zip(*(frame[column] for column in columns), strict=True))
    frame["conclusion"] = [conclusion(n, mean, p_alone, p, q, margin) for n, mean, p_alone, p, q in rows]
    frame["verdict"] = [verdict(p, q, mean) if n > 1 else None for n, mean, _, p, q in rows]
    return frame


_TESTED = ["n_pairs", "test_acc_diff_sd", "p_differs", "p_equivalent"]  # as in Comparison


def accuracy_by_seed(runs: pd.DataFrame) -> "pd.Series[float]":
    """Of the runs of a row that ended well, by seed."""
    ok = runs["status"].to_numpy() == "ok"
    accuracies: pd.Series[float] = runs["test_acc"][ok].set_axis(runs["seed"][ok])
    assert accuracies.index.is_unique, "a row holds each seed once"
    return accuracies
