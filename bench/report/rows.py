"""The rows of the tables as figures see them: how each looks, and how many of its runs are drawn."""

import math
from typing import Any

import pandas as pd

from bench.report.style import Key, Look, looks
from bench.stats import Interval, finished

TEST_ACCURACY = "test accuracy, %"


def counted(runs: pd.DataFrame) -> dict[Key, Look]:
    """Each row's look, its label with the count of runs where not all ended well: only those that did are drawn."""
    return {key: style._replace(label=style.label + _survivors(runs, key)) for key, style in looks(runs).items()}


def bar(interval: Interval) -> list[list[float]]:
    """The two arms of an interval of percentages, cut at 0 and 100; a single run has none."""
    arm = 0.0 if math.isnan(interval.half_width) else interval.half_width
    return [[min(arm, interval.mean)], [min(arm, 100 - interval.mean)]]


def mark(style: Look) -> dict[str, Any]:
    """How a mean is drawn, above everything else."""
    return {
        "fmt": style.marker,
        "color": style.colour,
        "mec": "white",
        "mew": 0.6,
        "capsize": 2.5,
        "zorder": 3,
    }


def _survivors(runs: pd.DataFrame, key: Key) -> str:
    """What a legend adds to a name whose runs did not all end well."""
    method, net, variant = key
    own = runs[(runs["method"] == method) & (runs["net"] == net) & (runs["variant"] == variant)]
    n_ok = len(finished(own))
    return "" if n_ok == len(own) else f"\n{n_ok}/{len(own)} runs ok"
