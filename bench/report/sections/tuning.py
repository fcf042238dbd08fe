"""What the search for settings tried and found, how much care a method needs, and what the search cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.record.results import Results
from bench.record.searches import VERDICTS, Found, Trial
from bench.report.blocks import Block, Data, Heading, Picture, Table, Text
from bench.report.numbers import percent
from bench.report.panels import legend, panel_per
from bench.report.style import PALETTE, close, scaled
from bench.report.text import figure as figure_text

NEAR = 0.05  # below the best accuracy: what is as good for most purposes
WORDS = frozenset(("data set", "method", "variant", "net", "best", "range", "verdict"))
NOTE = (
    "Every method had the same number of trials, on validation data and with a seed that is not among those reported; "
    "a range whose end was next to the best, or over which nothing was learnt, was widened and had further trials, "
    "by one rule for all. *Near*: of the trials that were spread evenly over the range, those within 5 points of the "
    "best; the fewer, the more care the method needs. *Search*: training seconds of all trials."
)
SHORTER = "Some trials were shorter than the runs that are reported: what suits a short run may not suit a long one."
CAPTION = (
    "Validation accuracy of every trial of the search. Ring: the best; crosses at 0: failed; dashes: what chance gives."
)
STAGES = {
    "spread": ("spread evenly", "0.6"),
    "guided": ("guided", PALETTE[0]),
    "widened": ("range widened", PALETTE[1]),
}


def section(results: Results) -> Iterator[Block]:
    found = results.searches
    if not found:
        return
    yield Data("tuning", pd.DataFrame([_row(row) for row in found]))
    yield Data("tuning_trials", pd.DataFrame([line for row in found for line in _trials(row)]))
    yield Heading("Settings found by search")
    yield Text(NOTE)
    if any(row.epochs < row.reported_epochs for row in found):
        yield Text(SHORTER)
    yield table_of(found)
    yield Picture("tuning", CAPTION, strips(found))


def table_of(found: Sequence[Found]) -> Table:
    """A line for each search; a column that is empty throughout is left out."""
    lines = [_cells(row) for row in found]
    headers = [header for header in (lines[0] if lines else ()) if any(line[header] for line in lines)]
    return Table(headers, [[line[header] or "-" for header in headers] for line in lines], WORDS)


def strips(found: Sequence[Found]) -> Figure:
    """A panel per data set, a line per search, a dot per trial."""
    datasets = sorted({row.dataset for row in found})
    most = max(sum(row.dataset == dataset for row in found) for dataset in datasets)
    figure, panels = panel_per(datasets, height=0.9 + 0.2 * most, paper=0.6 + 0.14 * most)
    for dataset, ax in panels:
        _strips(ax, [row for row in found if row.dataset == dataset])
    shown = {stage for row in found for stage in (trial.stage for trial in row.tried)}
    handles = {name: Line2D([], [], ls="", marker="o", color=c) for s, (name, c) in STAGES.items() if s in shown}
    legend(figure, handles)
    return figure


def _strips(ax: Axes, found: Sequence[Found]) -> None:
    for k, row in enumerate(found):
        for trial in row.tried:
            marker = "x" if trial.val_acc is None else "o"
            ax.plot(100 * (trial.val_acc or 0.0), k, marker, color=STAGES[trial.stage][1], ms=scaled(4), alpha=0.8)
        if row.val_acc is not None:
            ax.plot(100 * row.val_acc, k, "o", mfc="none", mec="black", ms=scaled(8), mew=scaled(1))
        ax.vlines(100 * row.at_chance, k - 0.5, k + 0.5, color="0.4", ls="--", lw=scaled(1))
    names = [figure_text(" ".join(filter(None, (row.method, row.variant)))) for row in found]
    ax.set_yticks(range(len(found)), names, size=7, **close())
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(-3, 103)
    ax.set_xlabel("validation accuracy, %")


def _row(row: Found) -> dict[str, Any]:
    """One search, unrounded."""
    even = _spread(row)
    kept = row.model_dump(
        include={"dataset", "method", "variant", "net", "val_acc", "verdict", "at_chance", "n_trials"}
    )
    return {
        **kept,
        "settings": _words(row.best or {}),
        "declared": _ranges(row.declared),
        "searched": _ranges(row.searched),
        "epochs": row.epochs,
        "reported_epochs": row.reported_epochs,
        "n_failed": sum(trial.val_acc is None for trial in row.tried),
        "n_spread": len(even),
        "n_near": sum(_is_near(row, trial) for trial in even),
        "search_train_s": _seconds(row),
        "date": row.date,
        "commit": row.commit,
    }


def _trials(row: Found) -> Iterator[dict[str, Any]]:
    for k, trial in enumerate(row.tried):
        known = trial.model_dump(exclude={"settings"})
        place = {"dataset": row.dataset, "method": row.method, "variant": row.variant, "net": row.net, "trial": k}
        yield {**place, **known, **trial.settings}


def _cells(row: Found) -> dict[str, str]:
    numbers = _row(row)
    failed = f" ({numbers['n_failed']} failed)" if numbers["n_failed"] else ""
    shorter = f"{row.epochs} of {row.reported_epochs}" if row.epochs != row.reported_epochs else ""
    near = f"{numbers['n_near']}/{numbers['n_spread']}" if numbers["n_spread"] and row.best else ""
    seconds = numbers["search_train_s"]
    return {
        "data set": row.dataset,
        "method": row.method,
        "variant": row.variant,
        "net": row.net,
        "best": numbers["settings"] or "none; default kept",
        "range": numbers["searched"] + (", widened" if row.searched != row.declared else ""),
        "validation acc, %": percent(math.nan if row.val_acc is None else row.val_acc),
        "trials": f"{row.n_trials}{failed}",
        "epochs": shorter,
        "near": near,
        "search, s": "" if math.isnan(seconds) else f"{seconds:,.0f}",
        "verdict": VERDICTS[row.verdict],
    }


def _spread(row: Found) -> list[Trial]:
    return [trial for trial in row.tried if trial.stage == "spread"]


def _is_near(row: Found, trial: Trial) -> bool:
    return trial.val_acc is not None and trial.val_acc >= (row.val_acc or 0.0) - NEAR


def _seconds(row: Found) -> float:
    """Of all trials whose seconds are known; not a number where none's are."""
    known = [trial.train_s for trial in row.tried if trial.train_s is not None]
    return sum(known) if known else math.nan


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _ranges(declared: Mapping[str, Sequence[Any]]) -> str:
    return "; ".join(_range(name, *of) for name, of in declared.items())


def _range(name: str, kind: str, *ends: Any) -> str:
    if kind == "choice":
        return f"{name}: {' | '.join(map(str, ends))}"
    return f"{name}: {ends[0]:g} to {ends[1]:g}"
