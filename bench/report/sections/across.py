"""Several data sets together: interquartile means, and the share of runs above each accuracy."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Axis, Block, Data, Heading, Panel, Series, Text
from bench.report.charts import picture
from bench.report.derived import table
from bench.report.rows import TEST_ACCURACY, counted
from bench.report.summary import ordered
from bench.stats import IQM, finished, interquartile_means, performance_band, performance_profile, scores_of

NOTE = "Over {datasets}, each row on all of them."
CAPTION = (
    "Performance profiles: the share of runs whose test accuracy lies above the value on the x axis, the mean over "
    "data sets. Higher is better."
)
BANDS = f"{CAPTION} Bands: 95% intervals, pointwise, by a bootstrap of the runs of each data set."
MOST_BANDS = 5  # more would hide each other


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    datasets = finished(runs)["dataset"].unique()
    means = interquartile_means(runs)
    if len(datasets) < 2 or means["iqm"].isna().all():
        return
    yield Data("across", means)
    yield Heading("Across data sets")
    yield Text(NOTE.format(datasets=" and ".join(datasets)))
    yield from table(means, IQM)
    banded = len(scores_of(runs)) <= MOST_BANDS
    panels = [profiles(runs, bands=banded)]
    yield from picture("performance_profile", BANDS if banded else CAPTION, panels, counted(runs))


def profiles(runs: pd.DataFrame, *, bands: bool) -> Panel:
    """The share of runs above each test accuracy, a line per row that ran on all data sets."""
    scores = scores_of(runs)
    every = np.concatenate([of for several in scores.values() for of in several])
    taus = np.linspace(max(0.0, every.min() - 0.02), min(1.0, every.max() + 0.01), 201)
    series = []
    for row, of_row in scores.items():
        share = performance_profile(of_row, taus)
        steps = slice(max(0, np.sum(share == 1) - 1), np.sum(share > 0) + 1)  # beyond them all lines coincide
        low, high = performance_band(of_row, taus[steps]) if bands else (np.array([]), np.array([]))
        x = (100 * taus[steps]).tolist()
        series.append(Series(row, "steps", x, share[steps].tolist(), low.tolist(), high.tolist()))
    return Panel("all data sets", Axis(TEST_ACCURACY), Axis("share of runs above it"), series)
