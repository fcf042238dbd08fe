"""Several data sets together: interquartile means, and the share of runs above each accuracy."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.record.primary import ACCURACY, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Axis, Block, Data, Heading, Panel, Series, Text
from bench.report.charts import picture
from bench.report.derived import table
from bench.report.rows import counted, named
from bench.report.summary import ordered
from bench.stats import finished, interquartile_means, iqm_of, performance_band, performance_profile, scores_of

NOTE = "Over {datasets}, each row on all of them."
CAPTION = (
    "Performance profiles: the share of runs whose test {word} lies above the value on the x axis, the mean over "
    "data sets. {better} is better."
)
BANDS = " Bands: 95% intervals, pointwise, by a bootstrap of the runs of each data set."
MOST_BANDS = 5  # more would hide each other


def section(results: Results) -> Iterator[Block]:
    told = False
    for primary, runs in apart(ordered(results.runs), results.primaries):
        if not primary.is_absolute:  # values in the unit of each data set have no mean
            continue
        datasets = finished(runs)["dataset"].unique()
        means = interquartile_means(runs, primary)
        if len(datasets) < 2 or means["iqm"].isna().all():
            continue
        yield Data(named("across", primary), means)
        if not told:
            yield Heading("Across data sets")
        told = True
        yield Text(NOTE.format(datasets=" and ".join(datasets)))
        yield from table(means, iqm_of(primary))
        banded = len(scores_of(runs, primary)) <= MOST_BANDS
        caption = CAPTION.format(word=primary.word, better="Higher" if primary.higher else "Lower")
        panels = [profiles(runs, bands=banded, primary=primary)]
        yield from picture(named("performance_profile", primary), caption + BANDS * banded, panels, counted(runs))


def profiles(runs: pd.DataFrame, *, bands: bool, primary: Primary = ACCURACY) -> Panel:
    """The share of runs above each value of the primary metric, a line per row that ran on all data sets."""
    scores = scores_of(runs, primary)
    every = np.concatenate([of for several in scores.values() for of in several])
    least, most = (bound / primary.scale for bound in primary.bounds)
    taus = np.linspace(max(least, every.min() - 0.02), min(most, every.max() + 0.01), 201)
    series = []
    for row, of_row in scores.items():
        share = performance_profile(of_row, taus)
        steps = slice(max(0, np.sum(share == 1) - 1), np.sum(share > 0) + 1)  # beyond them all lines coincide
        low, high = performance_band(of_row, taus[steps]) if bands else (np.array([]), np.array([]))
        x = (primary.scale * taus[steps]).tolist()
        series.append(Series(row, "steps", x, share[steps].tolist(), low.tolist(), high.tolist()))
    return Panel("all data sets", Axis(primary.axis("test")), Axis("share of runs above it"), series)
