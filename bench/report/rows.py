"""The rows of the tables as figures see them: how each looks, and how many of its runs are drawn."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes

from bench.record.primary import ACCURACY, Primary
from bench.report.style import Key, Look, looks, scaled
from bench.stats import Interval

CAP = 5  # points across the end of a bar


def counted(runs: pd.DataFrame) -> dict[Key, Look]:
    """Each row's look, its label with the count of runs where not all ended well: only those that did are drawn."""
    status: dict[Key, list[str]] = {}
    for method, net, variant, of in runs[["method", "net", "variant", "status"]].itertuples(index=False, name=None):
        status.setdefault((str(method), str(net), str(variant)), []).append(of)
    found = {}
    for key, style in looks(runs).items():
        n_ok, n = status[key].count("ok"), len(status[key])
        found[key] = style if n_ok == n else style._replace(label=f"{style.label}\n{n_ok}/{n} runs ok")
    return found


def named(name: str, primary: Primary) -> str:
    """The name of a file of one primary metric: of accuracy as it stands."""
    if primary.key == ACCURACY.key:
        return name
    return name.replace("accuracy", primary.key) if "accuracy" in name else f"{name}_{primary.key}"


def ends_of_bar(interval: Interval, primary: Primary = ACCURACY) -> tuple[float, float]:
    """Of an interval of a metric as shown, cut at its bounds; both at the mean of a single run."""
    mean, arm = interval.mean, 0.0 if math.isnan(interval.half_width) else interval.half_width
    low, high = primary.bounds
    return mean - min(arm, mean - low), mean + min(arm, high - mean)


class Mean(NamedTuple):
    """A mean at (x, y), and the ends of its bar, upright or level; `()` where it has none."""

    style: Look
    x: float
    y: float
    ends: tuple[float, ...] = ()


def means(ax: Axes, several: Iterable[Mean], *, level: bool = False) -> None:
    """Means, above everything else, and their bars under all of them: one artist for all bars, for thousands are slow.

    level: bars lie along x.
    """
    several = list(several)
    for mean in several:
        ax.plot(mean.x, mean.y, ls="", **_mark(mean.style))
    barred = [mean for mean in several if mean.ends]
    if not barred:
        return
    colours = [mean.style.colour for mean in barred]
    at = [mean.y if level else mean.x for mean in barred]
    low, high = ([mean.ends[k] for mean in barred] for k in (0, 1))
    (ax.hlines if level else ax.vlines)(at, low, high, colors=colours, lw=rcParams["lines.linewidth"], zorder=2.5)
    ends, twice = [*low, *high], [*at, *at]
    xs, ys = (ends, twice) if level else (twice, ends)
    marker = "|" if level else "_"
    ax.scatter(xs, ys, scaled(CAP) ** 2, colours * 2, marker=marker, linewidths=scaled(0.6), zorder=2.5)


def seeds(ax: Axes, several: Iterable[tuple[Look, Sequence[float], Sequence[float]]], *, size: float) -> None:
    """Small marks, x and y of each look, of this size beside means of 6: one artist for all that share a marker."""
    alike: dict[str, tuple[list[float], list[float], list[str]]] = {}
    for style, xs, ys in several:
        x, y, colours = alike.setdefault(style.marker, ([], [], []))
        x += xs
        y += ys
        colours += [style.colour] * len(xs)
    for marker, (x, y, colours) in alike.items():
        ax.scatter(x, y, scaled(size) ** 2, colours, marker=marker, alpha=0.4, linewidths=0, zorder=2)


def _mark(style: Look) -> dict[str, Any]:
    return {
        "marker": style.marker,
        "color": style.colour,
        "fillstyle": style.fill,
        "markerfacecoloralt": "white",
        "mec": "white" if style.fill == "full" else style.colour,
        "mew": scaled(0.6),
        "zorder": 3,
    }
