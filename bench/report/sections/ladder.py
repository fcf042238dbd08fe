"""The detach ladder: backprop, backprop with a head on each block, and the same heads with cuts between the blocks.

What a local rule changes comes in two steps, and they need not point the same way: heads change what is learnt, cuts
change who learns from whom. A picture for each net and data set on which all three rungs ended well.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.api.column import Column
from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import BESIDE, by_row, legend, line_handle
from bench.report.rows import bar, mark
from bench.report.style import Key, Look, looks
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import REFERENCE, finished, t_interval

HEADS, CUTS = "backprop-deep-supervision", "local-loss"  # the suite's own controls, as REFERENCE is
RUNGS = {REFERENCE: "backprop", HEADS: "+ heads", CUTS: "+ cuts"}
COLUMNS = ("test_acc", "retained_bytes", "train_s")
PERCENT = 100
APART = 0.18  # of two rows on one rung
CAPTION = (
    "The detach ladder: backprop, backprop with a head on each block, the same heads with cuts between the blocks. "
    "Large marks: means over seeds, of accuracies with 95% interval; small marks: the seeds."
)


class Place(NamedTuple):
    dataset: str
    net: str


def section(results: Results) -> Iterator[Block]:
    ladders = found(finished(ordered(results.runs)).dropna(subset=["test_acc"]))
    if ladders:
        columns = {column.name: column for column in results.columns if column.name in COLUMNS}
        drawn = ladder(ladders, [columns[name] for name in COLUMNS], looks(ordered(results.runs)))
        yield Picture("ladder", CAPTION, drawn)


def found(ok: pd.DataFrame) -> dict[Place, pd.DataFrame]:
    """The runs on the rungs, by data set and net, where there is one on each rung."""
    rungs = ok[ok["method"].isin(list(RUNGS))]
    places = {Place(str(d), str(n)): group for (d, n), group in rungs.groupby(["dataset", "net"])}
    return {place: group for place, group in places.items() if set(group["method"]) == set(RUNGS)}


def ladder(ladders: dict[Place, pd.DataFrame], columns: list[Column], look: dict[Key, Look]) -> Figure:
    """A line of panels per data set and net, a panel per column. Rungs stand from left to right."""
    figure = Figure(figsize=(2.6 * len(columns) + BESIDE, 2.4 * len(ladders)), layout="constrained")
    grid = figure.subplots(len(ladders), len(columns), squeeze=False)
    for (place, runs), line in zip(ladders.items(), grid, strict=True):
        for column, ax in zip(columns, line, strict=True):
            _panel(ax, runs.assign(value=column.scale * runs[column.name]), look, percent=column.scale == PERCENT)
            ax.set_ylabel(figure_text(column.title))
        line[0].set_title(figure_text(f"{place.dataset}, {place.net}"), loc="left")
    shown = {key for runs in ladders.values() for key, _ in by_row(runs)}
    legend(figure, {look[key].label: line_handle(look[key]._replace(dashes="")) for key in look if key in shown})
    return figure


def _panel(ax: Axes, runs: pd.DataFrame, look: dict[Key, Look], *, percent: bool) -> None:
    """Several rows of one method, such as the losses of local-loss, stand side by side on its rung."""
    for rung, method in enumerate(RUNGS):
        rows = list(by_row(runs[runs["method"] == method]))
        for k, (key, group) in enumerate(rows):
            interval = t_interval(group["value"])
            arms = bar(interval) if percent else None  # what is no percentage is told by its seeds
            x = rung + _beside(k, len(rows))
            style = look[key]
            ax.plot([x] * len(group), group["value"], style.marker, color=style.colour, ms=3, alpha=0.4, mew=0)
            ax.errorbar(x, interval.mean, yerr=arms, **mark(style))
    means = [[t_interval(group["value"]).mean for _, group in by_row(runs[runs["method"] == m])] for m in RUNGS]
    for k, last in enumerate(means[-1]):
        path = [values[min(k, len(values) - 1)] for values in means[:-1]] + [last]
        steps = [*range(len(path) - 1), len(path) - 1 + _beside(k, len(means[-1]))]
        ax.plot(steps, path, color="0.75", lw=0.8, zorder=1)
    ax.set_xticks(range(len(RUNGS)), list(RUNGS.values()))
    ax.set_xlim(-0.5, len(RUNGS) - 0.5)
    ax.grid(False, axis="x")


def _beside(k: int, n: int) -> float:
    """How far the k-th of n rows on a rung stands to the right of it."""
    return APART * (k - (n - 1) / 2)
