"""The figures of a report, a panel per data set. Only runs that ended `ok` are drawn, with their count.

Nothing here goes through pyplot: a `Figure` of its own needs no display and leaves no global state.
"""

import io
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.alignment import alignment
from bench.report.style import Key, Look, looks, theme
from bench.report.text import figure as figure_text
from bench.stats import Interval, finished, t_interval

PANELS_PER_LINE = 3
TEST_ACCURACY = "test accuracy, %"
HIGHEST = 100.5  # where an axis of percentages ends at the latest, so that a mark at 100 is whole


def draw(runs: pd.DataFrame, curves: pd.DataFrame, angles: pd.DataFrame) -> dict[str, bytes | None]:
    """The figures as PNG, by file name; None where there is nothing to show. Frames are tidy ones."""
    look = looks(runs)
    counted = {key: style._replace(label=style.label + _survivors(runs, key)) for key, style in look.items()}
    ok = finished(runs)
    points = curves[curves["run_id"].isin(ok["run_id"])]
    with theme():
        figures = {
            "accuracy.png": accuracy(runs, look),
            "curve_epoch.png": learning_curves(points, counted, "epoch"),
            "curve_seconds.png": learning_curves(points, counted, "train_s"),
            "accuracy_memory.png": accuracy_against(ok, counted, "memory"),
            "accuracy_time.png": accuracy_against(ok, counted, "time"),
            "alignment.png": None if angles.empty else alignment(angles[angles["run_id"].isin(ok["run_id"])], look),
        }
        return {name: None if figure is None else _png(figure) for name, figure in figures.items()}


def accuracy(runs: pd.DataFrame, look: dict[Key, Look]) -> Figure | None:
    """Test accuracy per row: the mean with its 95% interval, the seeds below it, and the count of runs."""
    datasets = _datasets(runs[runs["status"] == "ok"])
    if not datasets:
        return None
    figure, panels = _panels(datasets, height=0.9 + 0.42 * len(look), width=3.6, shared_rows=True)
    noise_free_shown = False
    for dataset, ax in panels:
        groups = dict(_groups(runs[runs["dataset"] == dataset]))
        for y, (key, style) in enumerate(look.items()):
            if key not in groups:
                continue
            ok = finished(groups[key])
            seeds = 100 * ok["test_acc"]
            ax.plot(seeds, [y + 0.27] * len(seeds), style.marker, color=style.colour, ms=3, alpha=0.5, mew=0)
            noise_free = t_interval(100 * ok["test_acc_noise_free"])
            interval = t_interval(seeds)
            if noise_free.n and not math.isclose(noise_free.mean, interval.mean, abs_tol=1e-6):
                noise_free_shown = True
                ax.plot(noise_free.mean, y, "d", color=style.colour, mfc="white", zorder=2)
            ax.errorbar(interval.mean, y, xerr=_bar(interval), **_mark(style))
            count = f"{len(ok)}/{len(groups[key])}"
            colour = "0.3" if len(ok) == len(groups[key]) else "#B00000"
            ax.text(1.02, y, count, transform=ax.get_yaxis_transform(), va="center", color=colour, size=8)
        ax.text(1.02, 1.01, "runs ok", transform=ax.transAxes, va="bottom", color="0.3", size=7.5)
        ax.set_yticks(range(len(look)), [style.label for style in look.values()])
        ax.set_ylim(len(look) - 0.4, -0.6)
        ax.grid(False, axis="y")
        ax.set_xlim(right=min(ax.get_xlim()[1], HIGHEST))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(TEST_ACCURACY)
    if noise_free_shown:
        mark = Line2D([], [], color="0.3", marker="d", mfc="white", ls="")
        figure.legend([mark], ["mean accuracy with noise-free inference"], loc="outside lower center")
    return figure


def learning_curves(points: pd.DataFrame, look: dict[Key, Look], x: Literal["epoch", "train_s"]) -> Figure | None:
    """Validation accuracy, or the training loss where none was measured: mean and range over seeds.

    A line ends where the first of its seeds stopped, for beyond that point it would be a mean of the rest.
    """
    points = points.dropna(subset=[x])
    points = points[points["val_acc"].notna() | points["train_loss"].notna()]
    datasets = _datasets(points)
    if not datasets:
        return None
    figure, panels = _panels(datasets)
    shown: set[Key] = set()
    for dataset, ax in panels:
        panel = points[points["dataset"] == dataset]
        by_loss = panel["val_acc"].isna().all()
        panel = panel.assign(y=panel["train_loss"] if by_loss else 100 * panel["val_acc"]).dropna(subset=["y"])
        for key, group in _groups(panel):
            at = group.groupby("epoch")
            line = pd.DataFrame({"x": at[x].mean(), "n": at["run_id"].nunique()})
            line = line.assign(y=at["y"].mean(), low=at["y"].min(), high=at["y"].max())
            line = line[line["n"] == group["run_id"].nunique()]
            style = look[key]
            ax.fill_between(line["x"], line["low"], line["high"], color=style.colour, alpha=0.15, lw=0)
            ax.plot(
                line["x"],
                line["y"],
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker,
                markersize=4,
                markevery=len(line) // 12 + 1,
            )
            shown.add(key)
        ax.set_ylabel("training loss (no validation)" if by_loss else "validation accuracy, %")
        if not by_loss:
            ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
        if x == "epoch":
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.set_xlabel("epoch")
        else:
            _log_if_wide(ax, panel.groupby("run_id")["train_s"].max())
            ax.set_xlabel("training time, s")
    _legend(figure, look, shown, lines=True)
    return figure


def accuracy_against(ok: pd.DataFrame, look: dict[Key, Look], cost: Literal["memory", "time"]) -> Figure | None:
    """Test accuracy (mean, 95% interval, seeds) against the peak memory or the training time of a run."""
    costs = {}
    for dataset, group in ok.groupby("dataset"):
        values, name = _memory(group) if cost == "memory" else (group["train_s"], "training time, s")
        known = group.assign(cost=values).dropna(subset=["cost", "test_acc"])
        if not known.empty:
            costs[str(dataset)] = known, name
    if not costs:
        return None
    figure, panels = _panels(list(costs))
    shown: set[Key] = set()
    for dataset, ax in panels:
        panel, name = costs[dataset]
        for key, group in _groups(panel):
            style = look[key]
            seeds = 100 * group["test_acc"]
            ax.plot(group["cost"], seeds, style.marker, color=style.colour, ms=3.5, alpha=0.4, mew=0)
            interval = t_interval(seeds)
            ax.errorbar(group["cost"].mean(), interval.mean, yerr=_bar(interval), **_mark(style))
            shown.add(key)
        _log_if_wide(ax, panel["cost"])
        ax.set_xlabel(name)
        ax.set_ylabel(TEST_ACCURACY)
        ax.margins(0.12)
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
    _legend(figure, look, shown, lines=False)
    return figure


def _memory(group: pd.DataFrame) -> "tuple[pd.Series[float], str]":
    """The peak in MiB and its name: the GPU's where every run has one, else the CPU's, which all have."""
    gpu = group["gpu_peak_alloc_bytes"]
    if gpu.notna().all():
        return gpu / 2**20, "peak GPU memory allocated, MiB"
    return group["cpu_peak_rss_bytes"] / 2**20, "peak CPU memory above set-up, MiB"


def _survivors(runs: pd.DataFrame, key: Key) -> str:
    """What a legend adds to a name whose runs did not all end well."""
    method, net, variant = key
    own = runs[(runs["method"] == method) & (runs["net"] == net) & (runs["variant"] == variant)]
    n_ok = len(finished(own))
    return "" if n_ok == len(own) else f"\n{n_ok}/{len(own)} runs ok"


def _datasets(frame: pd.DataFrame) -> list[str]:
    return sorted(frame["dataset"].unique())


def _groups(frame: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    for (method, net, variant), group in frame.groupby(["method", "net", "variant"], sort=False):
        yield (str(method), str(net), str(variant)), group


def _panels(
    datasets: list[str], *, height: float = 3.0, width: float = 3.9, shared_rows: bool = False
) -> tuple[Figure, list[tuple[str, Axes]]]:
    """A figure with one titled panel per data set. Sizes in inches, per panel."""
    down = math.ceil(len(datasets) / PANELS_PER_LINE)
    across = math.ceil(len(datasets) / down)
    legend = 1.6  # room for the names beside the panels
    figure = Figure(figsize=(width * across + legend, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=shared_rows).flatten()
    for ax in axes[len(datasets) :]:
        ax.remove()
    for dataset, ax in zip(datasets, axes, strict=False):
        ax.set_title(figure_text(dataset), loc="left")
    return figure, list(zip(datasets, axes, strict=False))


def _bar(interval: Interval) -> list[list[float]]:
    """The two arms of an interval of percentages, cut at 0 and 100; a single run has none."""
    arm = 0.0 if math.isnan(interval.half_width) else interval.half_width
    return [[min(arm, interval.mean)], [min(arm, 100 - interval.mean)]]


def _mark(style: Look) -> dict[str, Any]:
    """How a mean is drawn, above everything else."""
    return {
        "fmt": style.marker,
        "color": style.colour,
        "mec": "white",
        "mew": 0.6,
        "capsize": 2.5,
        "zorder": 3,
    }


def _log_if_wide(ax: Axes, values: "pd.Series[float]") -> None:
    """A logarithmic x axis where costs differ more than 20-fold: a linear one would heap up the cheap."""
    if values.min() > 0 and values.max() > 20 * values.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure, look: dict[Key, Look], shown: set[Key], *, lines: bool) -> None:
    styles = [style for key, style in look.items() if key in shown]
    handles = [Line2D([], [], color=s.colour, ls=s.dashes if lines else "", marker=s.marker, ms=5) for s in styles]
    figure.legend(handles, [s.label for s in styles], loc="outside right upper", handlelength=2.8)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; nothing to trouble the user with
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
