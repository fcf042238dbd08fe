"""Differences to backprop, seed by seed, and what they allow to conclude."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api.column import Column
from bench.catalog.catalog import reference as base
from bench.record.primary import ACCURACY, PERCENT, Primary, apart
from bench.stats.comparison import bonferroni, compare, conclusion, seeds_needed, simultaneous, verdict
from bench.stats.counts import ROW
from bench.stats.twins import twins

if TYPE_CHECKING:
    from pandas.api.typing import DataFrameGroupBy

DETECTABLE = 0.005  # the difference for which seeds are counted


def difference_of(primary: Primary) -> Column:
    """The column of the differences to backprop in a primary metric."""
    column = primary.column
    unit = "points" if column.scale == PERCENT else f"{primary.word}{f', {primary.unit}' if primary.unit else ''}"
    return Column(
        f"{primary.test}_diff",
        f"vs backprop, {unit}",
        f"test {primary.word} minus that of backprop on the same net, data, initial weights and batch order, seed by "
        "seed; the 95% intervals of all rows of a data set hold at once (Bonferroni), and agree with the conclusion",
        scale=column.scale,
        decimals=column.decimals,
        better=column.better,
        interval=True,
        shown="terminal",
        metric="" if primary.key == ACCURACY.key else primary.key,
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


def tests_of(primary: Primary) -> tuple[Column, ...]:
    """The columns of `paired_differences` for the rows of one primary metric."""
    difference, size = difference_of(primary), primary.size_words(DETECTABLE, "backprop's")
    return (
        Column("n_pairs", "pairs", "seeds that ended well with both methods", shown="page"),
        difference,
        Column(
            f"{difference.name}_sd",
            f"spread of differences, {difference.title.partition(', ')[2]}",
            "their standard deviation over seeds",
            scale=difference.scale,
        ),
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
            f"seeds for {size}",
            f"how many seeds a paired t test by itself needs to see {size} at a level of 5% with a power of 80%, if "
            "differences spread as they do here; a rough figure where that is known from few seeds",
            shown="page",
        ),
    )


def paired_differences(runs: pd.DataFrame, margin: float, primaries: Sequence[Primary] = (ACCURACY,)) -> pd.DataFrame:
    """Per row of another method: its primary metric on the test split minus that of its backprop twin, seed by seed.

    The twin shares data set, net, protocol, primary metric and seed, hence initial weights and batch order, so the
    spread that both have in common cancels. Columns: `twin_variant` (missing where backprop did not run, or in several
    forms with none nearest), `test_KEY_diff_mean` and `test_KEY_diff_ci95` (in the metric's own unit, fractions for
    accuracy; the latter the half-width of an interval that holds at once with the others), and those of `tests_of`. A
    family of tests is the rows of one data set and metric: its table is read as a whole, and another data set beside it
    changes no conclusion. margin: as `Primary.size` takes it.
    """
    frames = [_paired(of, margin, primary) for primary, of in apart(runs, primaries)]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _paired(runs: pd.DataFrame, margin: float, primary: Primary) -> pd.DataFrame:
    lines, twin, name = [], twins(runs), f"{primary.test}_diff"
    for row, group in runs.groupby(ROW, sort=False):
        if row[1] == base():
            continue
        nearest, of_twin = twin(group)
        theirs = values_by_seed(of_twin, primary)
        pairs = values_by_seed(group, primary) - theirs
        tests = compare(pairs, primary.size(margin, theirs.mean()))
        needed = seeds_needed(tests.sd, primary.size(DETECTABLE, theirs.mean()))
        lines.append((*row, nearest, pairs.mean(), *tests, needed))
    tested = ["n_pairs", f"{name}_sd", "p_differs", "p_equivalent"]  # as in Comparison
    frame = pd.DataFrame(lines, columns=[*ROW, "twin_variant", f"{name}_mean", *tested, "seeds_needed"])
    return judged(frame, name, margin, frame.groupby("dataset"), primary)


def judged(
    frame: pd.DataFrame,
    name: str,
    margin: float,
    families: "DataFrameGroupBy[Any, Any]",
    primary: Primary = ACCURACY,
    reference: str = "backprop's",
) -> pd.DataFrame:
    """The frame of differences NAME_mean with NAME_ci95, corrected p values, `verdict` and `conclusion` of each.

    families: the frame's rows that are tested together. reference: whose value a relative margin is a part of.
    """
    for test in ("p_differs", "p_equivalent"):
        frame[f"{test}_corrected"] = families[test].transform(lambda p_values: bonferroni(p_values))
    size = families["p_differs"].transform("count")
    frame[f"{name}_ci95"] = simultaneous(frame["n_pairs"], frame[f"{name}_sd"], size)
    columns = ("n_pairs", f"{name}_mean", "p_differs", "p_differs_corrected", "p_equivalent_corrected")
    rows = list(zip(*(frame[column] for column in columns), strict=True))
    frame["conclusion"] = [
        conclusion(n, mean, p_alone, p, q, margin, primary, reference) for n, mean, p_alone, p, q in rows
    ]
    frame["verdict"] = [verdict(p, q, mean) if n > 1 else None for n, mean, _, p, q in rows]
    return frame


def values_by_seed(runs: pd.DataFrame, primary: Primary) -> "pd.Series[float]":
    """The primary metric on the test split of the runs of a row that ended well, by seed."""
    ok = runs["status"].to_numpy() == "ok"
    values: pd.Series[float] = runs[primary.test][ok].set_axis(runs["seed"][ok])
    assert values.index.is_unique, "a row holds each seed once"
    return values
