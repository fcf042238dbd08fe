"""The angles between each method's step and backprop's gradient, layer by layer, over training."""

import math
from collections.abc import Iterator

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import sheet, stacked
from bench.report.style import Key, Look, close, columns, looks, scaled
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import finished

TABLE = "alignment"
CAPTION = "Cosine between each method's step and backprop's gradient on the same mini-batch and weights."
ACROSS, ACROSS_PAPER = 5, 4
FROM_INPUT_TO_OUTPUT = matplotlib.colormaps["viridis"]


def section(results: Results) -> Iterator[Block]:
    angles = results.table(TABLE)
    if angles.empty:
        return
    runs = ordered(results.runs)
    drawn = alignment(angles[angles["run_id"].isin(finished(runs)["run_id"])], looks(runs))
    if drawn is not None:
        yield Picture("alignment", CAPTION, drawn)


def alignment(points: pd.DataFrame, look: dict[Key, Look]) -> Figure | None:
    """One panel per data set and method, one line per layer: mean over seeds. None without any point.

    points: the store's view with columns method, net, variant, dataset, epoch, layer, cosine.
    """
    if points["cosine"].isna().all():
        return None
    found = {
        (str(d), (str(m), str(n), str(v))): g
        for (d, m, n, v), g in points.groupby(["dataset", "method", "net", "variant"])
    }
    order = [(dataset, key) for dataset in sorted({d for d, _ in found}) for key in look if (dataset, key) in found]
    several = len({dataset for dataset, _ in order}) > 1
    across = min(ACROSS if columns() is None else ACROSS_PAPER, len(order))
    down = math.ceil(len(order) / across)
    figure = sheet((2.1 * across + 1.2, 1.9 * down + 0.3), wide=across > 1, paper=1.4 * down + 0.3)
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for ax in axes[len(order) :]:
        ax.remove()
    for (dataset, key), ax in zip(order, axes, strict=False):
        ax.set_title(stacked(look[key].label) + (f"\n{figure_text(dataset)}" if several else ""), size=7, **close())
        _panel(ax, found[dataset, key])
    deepest = max(group["layer"].nunique() for group in found.values())
    handles = [Line2D([], [], color=_colour(i, deepest)) for i in range(deepest)]
    names = ["first", *[""] * (deepest - 2), "last"] if deepest > 1 else ["the only"]
    figure.legend(handles, names, title="layer", loc="outside right upper", labelspacing=0.1)
    figure.supxlabel("epoch")
    figure.supylabel("cosine with backprop's gradient")
    return figure


def _panel(ax: Axes, group: pd.DataFrame) -> None:
    layers = list(dict.fromkeys(group["layer"]))  # in the order of the net, as recorded
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    for i, layer in enumerate(layers):
        line = group[group["layer"] == layer].groupby("epoch")["cosine"].mean()
        ax.plot(line.index, line, color=_colour(i, len(layers)), marker=".", ms=scaled(3), lw=scaled(1.2))
    ax.set_ylim(min(-0.1, group["cosine"].min() - 0.05), 1.05)
    ax.tick_params(labelsize=7)


def _colour(i: int, n: int) -> tuple[float, float, float, float]:
    return FROM_INPUT_TO_OUTPUT(0.9 * i / max(1, n - 1))
