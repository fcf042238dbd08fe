"""Two folders of results, cell by cell: two commits, two machines, mine and the reference."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.primary import ACCURACY, Primary
from bench.stats.comparison import compare
from bench.stats.counts import ROW, finished
from bench.stats.disturbance import comparable
from bench.stats.paired import difference_of, judged, values_by_seed

CELL = [*ROW, "protocol"]
SIDES = ("a", "b")


def versus_of(primary: Primary) -> tuple[Column, ...]:
    """The columns of `versus` for the rows of one primary metric."""
    column = primary.column
    difference = difference_of(primary)
    shape: dict[str, Any] = {"scale": column.scale, "decimals": column.decimals, "shown": "terminal"}
    of_metric = "" if primary.key == ACCURACY.key else primary.key
    plural = "accuracies" if primary.key == ACCURACY.key else f"{primary.word} values"
    return (
        Column("n_a", "ok in A", "runs that ended well in the first folder", shown="terminal"),
        Column("n_b", "ok in B", "runs that ended well in the second", shown="terminal"),
        Column(f"{primary.test}_a", f"A, {column.title}", f"mean test {primary.word} in the first", **shape),
        Column(f"{primary.test}_b", f"B, {column.title}", f"mean test {primary.word} in the second", **shape),
        Column(
            "b_minus_a_diff",
            f"B - A, {difference.title.partition(', ')[2]}",
            f"difference of test {plural}, seed by seed",
            interval=True,
            metric=of_metric,
            **shape,
        ),
        Column("identical", "identical", f"seeds whose test {plural} are equal to the last digit", shown="terminal"),
        Column(
            "conclusion",
            "conclusion",
            "what the paired differences allow to say of B, at a level of 5% over all cells (Bonferroni), as in "
            "reports",
            text=True,
            shown="terminal",
        ),
    )


def versus(
    a: pd.DataFrame, b: pd.DataFrame, margin: float, ratios: Sequence[Column] = (), primary: Primary = ACCURACY
) -> pd.DataFrame:
    """Per cell that either has: the columns of `versus_of`, p values, and B over A of the means of each of `ratios`,
    none of times that others' work disturbed.

    A cell is a data set, method, net, variant and protocol; variants must have been told apart over both together, and
    all runs are of one primary metric. Columns: CELL, `n_a`, `n_b`, `test_KEY_a`, `test_KEY_b`, `n_pairs`,
    `b_minus_a_diff_mean` and `_ci95`, `identical`, `p_differs`, `p_equivalent` and their `_corrected`, `verdict`,
    `conclusion`, `X_ratio`. margin: as `Primary.size` takes it, of A's mean.
    """
    both = pd.concat([a.assign(_side="a"), b.assign(_side="b")], ignore_index=True)
    lines = []
    for cell, group in both.groupby(CELL, sort=False):
        ok = finished(group)
        sides = [ok[ok["_side"] == side] for side in SIDES]
        line: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        for name, side in zip(SIDES, sides, strict=True):
            line[f"n_{name}"], line[f"{primary.test}_{name}"] = len(side), side[primary.test].mean()
        of_a, of_b = (values_by_seed(side, primary) for side in sides)
        pairs = (of_b - of_a).dropna()
        tests = compare(pairs, primary.size(margin, of_a.mean()))
        line |= {
            "n_pairs": len(pairs),
            "b_minus_a_diff_mean": pairs.mean(),
            "b_minus_a_diff_sd": tests.sd,
            "identical": int((pairs == 0).sum()) if len(pairs) else math.nan,
            "p_differs": tests.p_differs,
            "p_equivalent": tests.p_equivalent,
        }
        for column in ratios:
            before, after = (side[column.name].mean() for side in sides)
            line[f"{column.name}_ratio"] = after / before if before and comparable(column, *sides) else math.nan
        lines.append(line)
    frame = pd.DataFrame(lines)
    return judged(frame, "b_minus_a_diff", margin, frame.groupby(lambda _: 0), primary, "A's")
