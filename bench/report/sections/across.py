"""Several data sets together: interquartile means, and the share of runs above each accuracy."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Picture, Text
from bench.report.derived import table
from bench.report.panels import legend, line_handle
from bench.report.rows import counted
from bench.report.style import Key, Look
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
    yield Picture("performance_profile", BANDS if banded else CAPTION, profiles(runs, counted(runs), bands=banded))


def profiles(runs: pd.DataFrame, look: dict[Key, Look], *, bands: bool) -> Figure:
    """The share of runs above each test accuracy, a line per row that ran on all data sets."""
    scores = scores_of(runs)
    every = np.concatenate([of for several in scores.values() for of in several])
    taus = np.linspace(max(0.0, every.min() - 0.02), min(1.0, every.max() + 0.01), 201)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    for row, of_row in scores.items():
        share = performance_profile(of_row, taus)
        steps = slice(max(0, np.sum(share == 1) - 1), np.sum(share > 0) + 1)  # beyond them all lines coincide
        x, style = 100 * taus[steps], look[row]
        ax.plot(
            x,
            share[steps],
            drawstyle="steps-post",
            **style.line,
            markersize=4,
            markevery=[0, -1],
        )
        if bands:
            low, high = performance_band(of_row, taus[steps])
            ax.fill_between(x, low, high, color=style.colour, alpha=0.15, lw=0, step="post")
    ax.set_xlabel("test accuracy, %")
    ax.set_ylabel("share of runs above it")
    legend(figure, {look[row].label: line_handle(look[row]) for row in scores})
    return figure
