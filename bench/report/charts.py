"""Panels of lines and marks as a figure: what a page draws by itself, drawn once more for paper."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from bench.record.primary import Primary
from bench.report.blocks import Axis, Panel, Picture, Series
from bench.report.panels import HIGHEST, by_error, is_wide, legend, line_handle, log_axis, n_lines, panel_per
from bench.report.rows import Mean, means, seeds
from bench.report.style import Key, Look, scaled
from bench.report.text import figure as figure_text

MOST_LINES = 50  # of names below a panel as wide as one column of a paper


def metric_axis(primary: Primary, split: str) -> Axis:
    """The axis of a primary metric; of percentages, it ends at 100."""
    return Axis(primary.axis(split), highest=HIGHEST if primary.is_percentage else None)


def cost_axis(title: str, values: "pd.Series[float]") -> Axis:
    """Logarithmic where costs differ more than 10-fold: a linear one would heap up the cheap."""
    return Axis(title, log=is_wide(values))


def picture(name: str, caption: str, panels: Sequence[Panel], look: Mapping[Key, Look]) -> Iterator[Picture]:
    """The figure of some panels, if there are any."""
    figure = drawn(panels, look)
    if figure is not None:
        yield Picture(name, caption, figure, panels, look)


def drawn(panels: Sequence[Panel], look: Mapping[Key, Look]) -> Figure | None:
    """One axes per panel, and the names of all rows beside them. None without any panel."""
    if not panels:
        return None
    names = _names(panels, look)
    figure, places = panel_per([panel.title for panel in panels], wide=sum(map(n_lines, names)) > MOST_LINES)
    for panel, (_, ax) in zip(panels, places, strict=True):
        _marks(ax, panel, look)
        for series in panel.series:
            _series(ax, series, look[series.row])
        _labels(ax, panel, look)
        if panel.x.log:
            xs = [x for series in panel.series for x in series.x]
            log_axis(ax, (1.0, 2.0, 5.0) if max(xs) < 100 * min(xs) else (1.0, 3.0))
        elif panel.x.whole:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.set_xlabel(figure_text(panel.x.title))
        ax.set_ylabel(figure_text(panel.y.title))
        if any(series.kind == "mean" for series in panel.series):
            ax.margins(0.12)
        if panel.y.errors:
            by_error(ax, "y", max(y for series in panel.series for y in series.y))
        elif panel.y.highest is not None:
            ax.set_ylim(top=min(ax.get_ylim()[1], panel.y.highest))
    legend(figure, names)
    return figure


def _marks(ax: Axes, panel: Panel, look: Mapping[Key, Look]) -> None:
    seeds(ax, [(look[of.row], of.x, of.y) for of in panel.series if of.kind == "seeds"], size=3.5)
    marks = []
    for of in panel.series:
        if of.kind == "mean":
            ends: Iterable[tuple[float, ...]] = zip(of.low, of.high, strict=True) if of.low else [()] * len(of.x)
            marks += [Mean(look[of.row], *at) for at in zip(of.x, of.y, ends, strict=True)]
    means(ax, marks)


def _labels(ax: Axes, panel: Panel, look: Mapping[Key, Look]) -> None:
    """Names beside their marks: the upper above, the lower below; of more, the legend tells."""
    labelled = sorted((of for of in panel.series if of.labelled), key=lambda of: of.y[0])
    for of, below in zip(labelled, (-9, 4), strict=False) if len(labelled) <= 2 else ():
        style, at = look[of.row], (of.x[0], of.y[0])
        name = ax.annotate(
            style.name, at, (5, below), textcoords="offset points", size=6.5, color=style.colour, zorder=4
        )
        name.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _series(ax: Axes, series: Series, style: Look) -> None:
    if series.kind == "front":
        ax.plot(series.x, series.y, color="0.6", lw=scaled(1), drawstyle="steps-post", zorder=1)
    elif series.kind not in ("seeds", "mean"):
        if series.low:
            step: Literal["post"] | None = "post" if series.kind == "steps" else None
            ax.fill_between(series.x, series.low, series.high, color=style.colour, alpha=0.15, lw=0, step=step)
        line = style.line if series.dashes is None else style._replace(dashes=series.dashes).line
        small = scaled(4)
        if series.kind == "steps":
            ax.plot(series.x, series.y, **line, drawstyle="steps-post", markersize=small, markevery=[0, -1])
        else:
            ax.plot(series.x, series.y, **line, markersize=small, markevery=len(series.x) // 12 + 1)


def _names(panels: Sequence[Panel], look: Mapping[Key, Look]) -> dict[str, Artist]:
    series = [series for panel in panels for series in panel.series if series.kind != "front"]
    shown, marked = {of.row for of in series}, all(of.kind in ("mean", "seeds") for of in series)
    told = dict(sorted({of.note: of.dashes for of in series if of.dashes is not None}.items()))
    plain = marked or bool(told)  # the dashes of a row say nothing here
    names: dict[str, Artist] = {
        style.label: line_handle(style._replace(dashes="") if plain else style)
        for key, style in look.items()
        if key in shown
    }
    names |= {figure_text(note): Line2D([], [], color="0.3", ls=dashes) for note, dashes in told.items()}
    if any(of.kind == "front" for panel in panels for of in panel.series):
        names["Pareto front"] = Line2D([], [], color="0.6", lw=1)
    return names
