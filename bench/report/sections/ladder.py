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
from bench.catalog.catalog import Catalog, installed, reference
from bench.record.primary import ACCURACY, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import BESIDE, by_row, legend, line_handle, sheet
from bench.report.rows import Mean, ends_of_bar, means, named, seeds
from bench.report.style import Key, Look, looks, scaled
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import finished, t_interval

RUNGS = ("reference", "heads", "cuts")  # as cards say
COSTS = ("retained_bytes", "train_s")
APART = 0.18  # of two rows on one rung
CAPTION = (
    "The detach ladder: backprop, backprop with a head on each block, the same heads with cuts between the blocks. "
    "Large marks: means over seeds, of {word} with 95% interval; small marks: the seeds."
)


class Place(NamedTuple):
    dataset: str
    net: str


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    runs = runs.assign(rung=runs["method"].map(rungs(results.catalog or installed())))
    for primary, of in apart(runs, results.primaries):
        ladders = found(finished(of).dropna(subset=[primary.test]))
        if ladders:
            names = (primary.test, *COSTS)
            columns = {column.name: column for column in results.columns if column.name in names}
            drawn = ladder(ladders, [columns[name] for name in names], looks(runs), primary)
            caption = CAPTION.format(word="accuracies" if primary.key == ACCURACY.key else primary.word)
            yield Picture(named("ladder", primary), caption, drawn)


def rungs(catalog: Catalog) -> dict[str, str]:
    """The rung of each method that has one."""
    cards = {name: entry.card.get("rung") for name, entry in catalog.methods.items()}
    return {reference(): RUNGS[0]} | {name: str(rung) for name, rung in cards.items() if rung in RUNGS[1:]}


def found(ok: pd.DataFrame) -> dict[Place, pd.DataFrame]:
    """The runs on the rungs, by data set and net, where there is one on each rung. ok: with the `rung` of each."""
    on_rungs = ok.dropna(subset=["rung"])
    places = {Place(str(d), str(n)): group for (d, n), group in on_rungs.groupby(["dataset", "net"])}
    return {place: group for place, group in places.items() if set(group["rung"]) == set(RUNGS)}


def ladder(
    ladders: dict[Place, pd.DataFrame], columns: list[Column], look: dict[Key, Look], primary: Primary = ACCURACY
) -> Figure:
    """A line of panels per data set and net, a panel per column. Rungs stand from left to right."""
    figure = sheet((2.6 * len(columns) + BESIDE, 2.4 * len(ladders)), wide=True, paper=1.6 * len(ladders))
    grid = figure.subplots(len(ladders), len(columns), squeeze=False)
    for (place, runs), line in zip(ladders.items(), grid, strict=True):
        for column, ax in zip(columns, line, strict=True):
            barred = primary if column.name == primary.test else None
            _panel(ax, runs.assign(value=column.scale * runs[column.name]), look, barred)
            ax.set_ylabel(figure_text(column.title))
        line[0].set_title(figure_text(f"{place.dataset}, {place.net}"), loc="left", y=1)
    shown = {key for runs in ladders.values() for key, _ in by_row(runs)}
    legend(figure, {look[key].label: line_handle(look[key]._replace(dashes="")) for key in look if key in shown})
    return figure


def _panel(ax: Axes, runs: pd.DataFrame, look: dict[Key, Look], barred: Primary | None) -> None:
    """Several rows of one rung, such as the losses of a local rule, stand side by side."""
    of_rungs = [list(by_row(runs[runs["rung"] == rung])) for rung in RUNGS]
    dots, marks, heights = [], [], []
    for rung, rows in enumerate(of_rungs):
        of_rows = [t_interval(group["value"]) for _, group in rows]
        heights.append([interval.mean for interval in of_rows])
        for k, ((key, group), interval) in enumerate(zip(rows, of_rows, strict=True)):
            x = rung + _beside(k, len(rows))
            dots.append((look[key], [x] * len(group), group["value"].tolist()))
            ends = ends_of_bar(interval, barred) if barred else ()  # costs are told by their seeds
            marks.append(Mean(look[key], x, interval.mean, ends))
    seeds(ax, dots, size=3)
    means(ax, marks)
    for k, last in enumerate(heights[-1]):
        path = [values[min(k, len(values) - 1)] for values in heights[:-1]] + [last]
        steps = [*range(len(path) - 1), len(path) - 1 + _beside(k, len(heights[-1]))]
        ax.plot(steps, path, color="0.75", lw=scaled(0.8), zorder=1)
    ax.set_xticks(range(len(RUNGS)), [reference(), *(f"+ {rung}" for rung in RUNGS[1:])])
    ax.set_xlim(-0.5, len(RUNGS) - 0.5)
    ax.grid(False, axis="x")


def _beside(k: int, n: int) -> float:
    """How far the k-th of n rows on a rung stands to the right of it."""
    return APART * (k - (n - 1) / 2)
