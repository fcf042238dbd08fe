"""Two folders of results, cell by cell: two commits, two machines, mine and the reference."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.stats.comparison import compare
from bench.stats.counts import ROW, finished
from bench.stats.disturbance import comparable
from bench.stats.paired import accuracy_by_seed, judged

CELL = [*ROW, "protocol"]
SIDES = ("a", "b")

VERSUS = (
    Column("n_a", "ok in A", "runs that ended well in the first folder", shown="terminal"),
    Column("n_b", "ok in B", "runs that ended well in the second", shown="terminal"),
    Column("test_acc_a", "A, test acc, %", "mean test accuracy in the first", scale=100, decimals=2, shown="terminal"),
    Column("test_acc_b", "B, test acc, %", "mean test accuracy in the second", scale=100, decimals=2, shown="terminal"),
    Column(
        "b_minus_a_diff",
        "B - A, points",
        "difference of test accuracies, seed by seed",
        scale=100,
        decimals=2,
        interval=True,
        shown="terminal",
    ),
    Column("identical", "identical", "seeds whose test accuracies are equal to the last digit", shown="terminal"),
    Column(
        "conclusion",
        "conclusion",
        "what the paired differences allow to say of B, at a level of 5% over all cells (Bonferroni), as in reports",
        text=True,
        shown="terminal",
    ),
)


def versus(a: pd.DataFrame, b: pd.DataFrame, margin: float, ratios: Sequence[Column] = ()) -> pd.DataFrame:
    """Per cell that either has: the columns of VERSUS, p values, and B over A of the means of each of `ratios`,
    none of times that others' work disturbed.

    A cell is a data set, method, net, variant and protocol; variants must have been told apart over both together.
    Columns: CELL, `n_a`, `n_b`, `test_acc_a`, `test_acc_b`, `n_pairs`, `b_minus_a_diff_mean` and `_ci95`, `identical`,
    `p_differs`, `p_equivalent` and their `_corrected`, `verdict`, `conclusion`, `X_ratio`. margin: a fraction.
    """
    both = pd.concat([a.assign(_side="a"), b.assign(_side="b")], ignore_index=True)
    lines = []
    for cell, group in both.groupby(CELL, sort=False):
        ok = finished(group)
        sides = [ok[ok["_side"] == side] for side in SIDES]
        line: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        for name, side in zip(SIDES, sides, strict=True):
            line[f"n_{name}"], line[f"test_acc_{name}"] = len(side), side["test_acc"].mean()
        of_a, of_b = (accuracy_by_seed(side) for side in sides)
        pairs = (of_b - of_a).dropna()
        tests = compare(pairs, margin)
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
    return judged(frame, "b_minus_a_diff", margin, frame.groupby(lambda _: 0))
