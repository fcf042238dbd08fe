"""What accuracy costs: in memory, and in time."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from bench.api.column import Column
from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import HIGHEST, by_row, legend, line_handle, log_if_wide, panel_per
from bench.report.rows import TEST_ACCURACY, bar, counted, mark
from bench.report.style import Key, Look
from bench.report.summary import ordered
from bench.stats import finished, t_interval

COSTS = {
    "memory": ("gpu_peak_alloc_bytes", "cpu_peak_rss_bytes", "live_peak_bytes"),  # the first that all runs have
    "time": ("train_s",),
}
CAPTIONS = {
    "memory": "Test accuracy against peak memory. Left and up is better.",
    "time": "Test accuracy against training time. Left and up is better.",
}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    known = {column.name: column for column in results.columns}
    for cost, names in COSTS.items():
        columns = [known[name] for name in names if name in known]
        drawn = accuracy_against(finished(runs), counted(runs), columns)
        if drawn is not None:
            yield Picture(f"accuracy_{cost}", CAPTIONS[cost], drawn)


def accuracy_against(ok: pd.DataFrame, look: dict[Key, Look], costs_of: Sequence[Column]) -> Figure | None:
    """Test accuracy (mean, 95% interval, seeds) against a cost: the first of these columns that all runs have."""
    costs = {}
    for dataset, group in ok.groupby("dataset"):
        group = group.dropna(subset=["test_acc"])
        column = next((c for c in costs_of if c.name in group and len(group) and group[c.name].notna().all()), None)
        if column is not None:
            costs[str(dataset)] = group.assign(cost=column.scale * group[column.name]), column.title
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
            ax.errorbar(group["cost"].mean(), interval.mean, yerr=bar(interval), **mark(style))
            shown.add(key)
        log_if_wide(ax, panel["cost"])
        ax.set_xlabel(name)
        ax.set_ylabel(TEST_ACCURACY)
        ax.margins(0.12)
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
    legend(figure, {look[key].label: line_handle(look[key]._replace(dashes="")) for key in look if key in shown})
    return figure
