"""What the figures of a report share: panels of data sets, the names of rows beside them, and axes of costs."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from bench.report.style import Key, Look, close, columns, scaled
from bench.report.text import figure as figure_text

PANELS_PER_LINE = 3
MOST_COLUMNS = 5  # of names below the panels
BESIDE = 1.6  # inches beside the panels, enough for short names
LEAST_ERROR = 0.1  # of accuracies in percent
ERROR_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.9)
SPREAD, FAR_APART = 8, 25  # fold, and points
HIGHEST = 100.5  # where an axis of percentages ends at the latest, so that a mark at 100 is whole


def datasets_of(frame: pd.DataFrame) -> list[str]:
    """The data sets in the order of their panels."""
    return sorted(frame["dataset"].unique())


def by_row(frame: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    """The lines of each (method, net, variant)."""
    for (method, net, variant), group in frame.groupby(["method", "net", "variant"], sort=False):
        yield (str(method), str(net), str(variant)), group


def sheet(screen: tuple[float, float], *, wide: bool, paper: float) -> Figure:
    """An empty figure, of this size on a screen, in inches; on a paper a column wide, or two, and so high."""
    widths = columns()
    size = screen if widths is None else (widths[wide], paper)
    return Figure(figsize=size, layout="constrained")


def panel_per(
    datasets: list[str],
    *,
    height: float = 3.0,
    width: float = 3.9,
    paper: float = 2.1,
    shared_rows: bool = False,
    wide: bool = False,
) -> tuple[Figure, list[tuple[str, Axes]]]:
    """A figure with one titled panel per data set. Sizes in inches, per panel.

    On a paper: its height there, and whether it takes two columns even where there is one panel.
    """
    # where one column of names serves all panels, more of them stand beside each other on a paper
    per_line = PANELS_PER_LINE + 1 if shared_rows and columns() is not None else PANELS_PER_LINE
    down = math.ceil(len(datasets) / per_line)
    across = math.ceil(len(datasets) / down)
    figure = sheet((width * across + BESIDE, height * down), wide=wide or across > 1, paper=paper * down)
    axes = figure.subplots(down, across, squeeze=False, sharey=shared_rows).flatten()
    for ax in axes[len(datasets) :]:
        ax.remove()
    for dataset, ax in zip(datasets, axes, strict=False):
        ax.set_title(figure_text(dataset), loc="left", y=1)  # where it would be found to be, by measuring all ticks
    return figure, list(zip(datasets, axes, strict=False))


def line_handle(style: Look) -> Line2D:
    """What stands for a row in the legend of a figure of lines."""
    return Line2D([], [], **style.line, ms=scaled(5))


def legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """The names beside the panels, on a paper below, which keep their size however many and long the names are."""
    if columns() is not None:
        below(figure, handles)
        return
    make_room(figure, list(handles))
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", handlelength=2.8)


def below(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Names below the panels, in as many columns as fit; the figure is made higher by what they take."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches()
    for n in range(min(MOST_COLUMNS, len(handles)), 0, -1):
        names = figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=n,
            handlelength=1.8,
            handletextpad=0.6,
            columnspacing=1,
            labelspacing=0.35,
        )
        for text in names.get_texts():
            text.update(close())
        space = names.get_window_extent(renderer)
        if space.width <= figure.dpi * width or n == 1:
            break
        names.remove()
    figure.set_size_inches(width, height + space.height / figure.dpi)


def make_room(figure: Figure, names: list[str]) -> None:
    """Enlarge the figure to hold these names, some of several lines, in a column."""
    if columns() is not None:
        return  # as wide as a column is
    lines = [line for name in names for line in name.split("\n")]
    width, height = figure.get_size_inches()
    beside = 0.6 + 0.073 * max(len(line) for line in lines)
    figure.set_size_inches(width - BESIDE + max(BESIDE, beside), max(height, 0.2 + 0.185 * len(lines)))


def n_lines(name: str) -> int:
    return name.count("\n") + 1


def stacked(label: str) -> str:
    """A label as the title of a small panel: in narrow lines."""
    return textwrap.fill(label.replace("\n", " "), 27, break_long_words=False, break_on_hyphens=False)


def by_error(ax: Axes, axis: str, best: float) -> None:
    """Percentages by their distance to 100, logarithmically, up to somewhat above the best.

    A distance below LEAST_ERROR counts as that.
    """
    inside = getattr(ax, f"get_{axis}lim")()
    low, high = max(0.0, min(inside)), 100 - max(LEAST_ERROR, (100 - best) / 1.4)
    getattr(ax, f"set_{axis}scale")(
        "function", functions=(lambda v: -np.log10(np.maximum(100 - v, LEAST_ERROR)), lambda v: 100 - 10.0**-v)
    )
    getattr(ax, f"set_{axis}lim")(low, high)
    places = getattr(ax, f"{axis}axis")
    places.set_major_locator(FixedLocator([tick for tick in ERROR_TICKS if low <= tick <= high]))
    places.set_minor_locator(NullLocator())
    places.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def spread_of_errors(percentages: Iterable[float]) -> bool:
    """Whether the worst is so far from the best that they need `by_error`."""
    known = [max(100 - value, LEAST_ERROR) for value in percentages if not math.isnan(value)]
    return bool(known) and max(known) > SPREAD * min(known) and max(known) - min(known) > FAR_APART


def is_wide(values: "pd.Series[float]") -> bool:
    """Whether positive values differ more than 10-fold."""
    return bool(values.min() > 0 and values.max() > 10 * values.min())


def log_axis(ax: Axes, subs: tuple[float, ...]) -> None:
    """A logarithmic x axis with plain numbers at these multiples of the powers of ten."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
