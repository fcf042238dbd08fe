"""Learning curves, against epochs and against seconds."""

from collections.abc import Iterator
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import HIGHEST, by_row, datasets_of, legend, line_handle, log_if_wide, panel_per
from bench.report.rows import counted
from bench.report.style import Key, Look
from bench.report.summary import ordered
from bench.stats import finished

CAPTIONS: dict[Literal["epoch", "train_s"], tuple[str, str]] = {
    "epoch": ("curve_epoch", "Learning curves against epochs. Line: mean over seeds; band: their range."),
    "train_s": ("curve_seconds", "Learning curves against training time (evaluation excluded)."),
}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    points = results.curves[results.curves["run_id"].isin(finished(runs)["run_id"])]
    for x, (name, caption) in CAPTIONS.items():
        drawn = learning_curves(points, counted(runs), x)
        if drawn is not None:
            yield Picture(name, caption, drawn)


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
                **style.line,
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
