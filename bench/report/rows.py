"""The rows of the tables as figures see them: how each looks, and how many of its runs are drawn."""

import math
from typing import Any

import pandas as pd

from bench.report.style import Key, Look, looks
from bench.stats import Interval

TEST_ACCURACY = "test accuracy, %"


def counted(runs: pd.DataFrame) -> dict[Key, Look]:
    """Each row's look, its label with the count of runs where not all ended well: only those that did are drawn."""
    status: dict[Key, list[str]] = {}
    for method, net, variant, of in runs[["method", "net", "variant", "status"]].itertuples(index=False, name=None):
        status.setdefault((str(method), str(net), str(variant)), []).append(of)
    found = {}
    for key, style in looks(runs).items():
        n_ok, n = status[key].count("ok"), len(status[key])
        found[key] = style if n_ok == n else style._replace(label=f"{style.label}\n{n_ok}/{n} runs ok")
    return found


def bar(interval: Interval) -> list[list[float]]:
    """The two arms of an interval of percentages, cut at 0 and 100; a single run has none."""
    arm = 0.0 if math.isnan(interval.half_width) else interval.half_width
    return [[min(arm, interval.mean)], [min(arm, 100 - interval.mean)]]


def mark(style: Look) -> dict[str, Any]:
    """How a mean is drawn, above everything else."""
    return {
        "fmt": style.marker,
        "color": style.colour,
        "fillstyle": style.fill,
        "markerfacecoloralt": "white",
        "mec": "white" if style.fill == "full" else style.colour,
        "mew": 0.6,
        "capsize": 2.5,
        "zorder": 3,
    }
