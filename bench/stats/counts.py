"""Rows of tables, and how many of their runs ended well.

A row is one (data set, method, net, variant). Its sample is the seeds whose run ended `ok`; those that did not are
counted beside it, so that survivors are never averaged silently.
"""

from collections import Counter

import pandas as pd

ROW = ["dataset", "method", "net", "variant"]


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that ended `ok`: the only ones that enter an average."""
    return runs[runs["status"] == "ok"]


def count_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Per row: `n_ok` of `n_runs`, and `failures` in words, as in `1 oom, 2 diverged`."""
    counts = [
        (*row, int((group["status"] == "ok").sum()), len(group), _failures(group["status"]))
        for row, group in runs.groupby(ROW, sort=False)
    ]
    return pd.DataFrame(counts, columns=[*ROW, "n_ok", "n_runs", "failures"])


def _failures(status: "pd.Series[str]") -> str:
    failed = Counter(status[status != "ok"])
    return ", ".join(f"{n} {name}" for name, n in sorted(failed.items()))
