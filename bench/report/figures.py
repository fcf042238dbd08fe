"""The figures of a report, a panel per data set. Only runs that ended `ok` are drawn, with their count.

Nothing here goes through pyplot: a `Figure` of its own needs no display and leaves no global state.
"""

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.report import exhibits
from bench.report.alignment import alignment
from bench.report.panels import HIGHEST, by_row, datasets_of, legend, line_handle, log_if_wide, make_room, panel_per
from bench.report.style import Key, Look, looks, theme
from bench.stats import Interval, finished, t_interval

TEST_ACCURACY = "test accuracy, %"


def draw(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    angles: pd.DataFrame,
    steps: pd.DataFrame,
    arrays: Mapping[str, exhibits.Arrays],
) -> dict[str, bytes | None]:
    """The figures as PNG, by file name; None where there is nothing to show. Frames are tidy ones.

    steps: accuracy by number of steps, as in `tables/ways.csv`; arrays: what runs left for pictures, by run.
    """
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
            "accuracy_steps.png": exhibits.accuracy_steps(steps, counted),
            "label_path.png": exhibits.label_paths(exhibits.of_rows("label_path", ok, arrays, look)),
            "prototypes.png": exhibits.prototypes(exhibits.of_rows("prototypes", ok, arrays, look)),
            "schedule.png": exhibits.schedules(exhibits.of_rows("schedule", ok, arrays, look)),
        }
        return {name: None if figure is None else _png(figure) for name, figure in figures.items()}


def accuracy(runs: pd.DataFrame, look: dict[Key, Look]) -> Figure | None:
    """Test accuracy per row: the mean with its 95% interval, the seeds below it, and the count of runs."""
    datasets = datasets_of(runs[runs["status"] == "ok"])
    if not datasets:
        return None
    figure, panels = panel_per(datasets, height=0.9 + 0.42 * len(look), width=3.6, shared_rows=True)
    make_room(figure, [style.label for style in look.values()])
    noise_free_shown = False
    for dataset, ax in panels:
        groups = dict(by_row(runs[runs["dataset"] == dataset]))
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
    datasets = datasets_of(points)
    if not datasets:
        return None
    figure, panels = panel_per(datasets)
    shown: set[Key] = set()
    for dataset, ax in panels:
        panel = points[points["dataset"] == dataset]
        by_loss = panel["val_acc"].isna().all()
        panel = panel.assign(y=panel["train_loss"] if by_loss else 100 * panel["val_acc"]).dropna(subset=["y"])
        for key, group in by_row(panel):
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
            log_if_wide(ax, panel.groupby("run_id")["train_s"].max())
            ax.set_xlabel("training time, s")
    legend(figure, {look[key].label: line_handle(look[key]) for key in look if key in shown})
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
    figure, panels = panel_per(list(costs))
    shown: set[Key] = set()
    for dataset, ax in panels:
        panel, name = costs[dataset]
        for key, group in by_row(panel):
            style = look[key]
            seeds = 100 * group["test_acc"]
            ax.plot(group["cost"], seeds, style.marker, color=style.colour, ms=3.5, alpha=0.4, mew=0)
            interval = t_interval(seeds)
            ax.errorbar(group["cost"].mean(), interval.mean, yerr=_bar(interval), **_mark(style))
            shown.add(key)
        log_if_wide(ax, panel["cost"])
        ax.set_xlabel(name)
        ax.set_ylabel(TEST_ACCURACY)
        ax.margins(0.12)
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
    legend(figure, {look[key].label: line_handle(look[key]._replace(dashes="")) for key in look if key in shown})
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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; nothing to trouble the user with
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
