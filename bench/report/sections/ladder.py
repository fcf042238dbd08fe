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
from bench.report.rows import bar, mark
from bench.report.style import Look, looks
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import REFERENCE, finished, t_interval

HEADS, CUTS = "backprop-deep-supervision", "local-loss"  # the suite's own controls, as REFERENCE is
RUNGS = {REFERENCE: "backprop", HEADS: "with heads", CUTS: "heads and cuts"}
COLUMNS = ("test_acc", "retained_bytes", "train_s")
PERCENT = 100
CAPTION = (
    "The detach ladder: backprop, backprop with a head on each block, the same heads with cuts between the blocks. "
    "Large marks: mean and 95% interval over seeds; thin lines join the runs of a seed."
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


def ladder(ladders: dict[Place, pd.DataFrame], columns: list[Column], look: dict[tuple[str, str, str], Look]) -> Figure:
    """A line of panels per data set and net, a panel per column. Rungs stand from left to right."""
    figure = Figure(figsize=(2.7 * len(columns), 2.3 * len(ladders) + 0.3), layout="constrained")
    grid = figure.subplots(len(ladders), len(columns), squeeze=False)
    for (place, runs), line in zip(ladders.items(), grid, strict=True):
        for column, ax in zip(columns, line, strict=True):
            _panel(ax, runs, column, look)
            ax.set_ylabel(figure_text(column.title))
        line[0].set_title(figure_text(f"{place.dataset}, {place.net}"), loc="left")
    return figure


def _panel(ax: Axes, runs: pd.DataFrame, column: Column, look: dict[tuple[str, str, str], Look]) -> None:
    """Several rows of one method, such as variants of a local loss, stand side by side on its rung."""
    values = runs.assign(value=column.scale * runs[column.name])
    places: dict[str, list[float]] = {}  # by run of a seed, its marks from left to right
    for rung, method in enumerate(RUNGS):
        rows = list(values[values["method"] == method].groupby(["method", "net", "variant"], sort=False))
        for k, (key, group) in enumerate(rows):
            x = rung + 0.16 * (k - (len(rows) - 1) / 2)
            interval = t_interval(group["value"])
            arms = bar(interval) if column.scale == PERCENT else [[interval.half_width]] * 2
            style = look[str(key[0]), str(key[1]), str(key[2])]
            ax.errorbar(x, interval.mean, yerr=arms, **mark(style))
            if len(rows) > 1:
                ax.annotate(figure_text(key[2]), (x, interval.mean), xytext=(4, 4), textcoords="offset points", size=6)
            if k == 0:
                for seed, value in group.groupby("seed")["value"].mean().items():
                    places.setdefault(str(seed), []).append(value)
    for of_seed in places.values():
        if len(of_seed) == len(RUNGS):
            ax.plot(range(len(RUNGS)), of_seed, color="0.75", lw=0.8, zorder=1)
    ax.set_xticks(range(len(RUNGS)), list(RUNGS.values()), size=7.5)
    ax.set_xlim(-0.4, len(RUNGS) - 0.6)
    ax.grid(False, axis="x")
