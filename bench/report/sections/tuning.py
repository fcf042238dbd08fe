"""What the search for settings tried and found, how much care a method needs, and what the search cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.record.results import Results
from bench.record.searches import VERDICTS, Found, Trial
from bench.report.blocks import Block, Data, Heading, Picture, Table, Text
from bench.report.numbers import shown
from bench.report.panels import legend, panel_per
from bench.report.rows import named
from bench.report.style import PALETTE, close, scaled
from bench.report.text import figure as figure_text

NEAR = 0.05  # from the best: what is as good for most purposes; as `Primary.size` takes it
WORDS = frozenset(("data set", "method", "variant", "net", "best", "range", "verdict"))
NOTE = (
    "Every method had the same number of trials, on validation data and with a seed that is not among those reported; "
    "a range whose end was next to the best, or over which nothing was learnt, was widened and had further trials, "
    "by one rule for all. *Near*: of the trials that were spread evenly over the range, those within {near} of the "
    "best; the fewer, the more care the method needs. *Search*: training seconds of all trials."
)
SHORTER = "Some trials were shorter than the runs that are reported: what suits a short run may not suit a long one."
CAPTION = (
    "Validation {word} of every trial of the search. Ring: the best; crosses at {failed}: failed; dashes: what chance "
    "gives."
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
    judged = {row.primary.key: row.primary for row in found}
    yield Text(NOTE.format(near=" or ".join(primary.size_words(NEAR, "it") for primary in judged.values())))
    if any(row.epochs < row.reported_epochs for row in found):
        yield Text(SHORTER)
    for primary in judged.values():
        of = [row for row in found if row.primary.key == primary.key]
        failed = "0" if primary.is_percentage else "chance"
        yield table_of(of)
        yield Picture(named("tuning", primary), CAPTION.format(word=primary.word, failed=failed), strips(of))


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


def failed(row: Found) -> float:
    """Where a trial that failed is drawn."""
    return 0.0 if row.primary.is_percentage else row.at_chance


def _strips(ax: Axes, found: Sequence[Found]) -> None:
    """The searches of one primary metric."""
    primary = found[0].primary
    scale = primary.scale
    for k, row in enumerate(found):
        for trial in row.tried:
            marker = "x" if trial.value is None else "o"
            value = failed(row) if trial.value is None else trial.value
            ax.plot(scale * value, k, marker, color=STAGES[trial.stage][1], ms=scaled(4), alpha=0.8)
        if row.value is not None:
            ax.plot(scale * row.value, k, "o", mfc="none", mec="black", ms=scaled(8), mew=scaled(1))
        ax.vlines(scale * row.at_chance, k - 0.5, k + 0.5, color="0.4", ls="--", lw=scaled(1))
    names = [figure_text(" ".join(filter(None, (row.method, row.variant)))) for row in found]
    ax.set_yticks(range(len(found)), names, size=7, **close())
    ax.set_ylim(len(found) - 0.5, -0.5)
    if primary.is_percentage:
        ax.set_xlim(-3, 103)
    ax.set_xlabel(figure_text(primary.axis("validation")))


def _row(row: Found) -> dict[str, Any]:
    """One search, unrounded."""
    even = _spread(row)
    kept = row.model_dump(include={"dataset", "method", "variant", "net", "value", "verdict", "at_chance", "n_trials"})
    return {
        **{row.primary.val if name == "value" else name: value for name, value in kept.items()},
        "settings": _words(row.best or {}),
        "declared": _ranges(row.declared),
        "searched": _ranges(row.searched),
        "epochs": row.epochs,
        "reported_epochs": row.reported_epochs,
        "n_failed": sum(trial.value is None for trial in row.tried),
        "n_spread": len(even),
        "n_near": sum(_is_near(row, trial) for trial in even),
        "search_train_s": _seconds(row),
        "date": row.date,
        "commit": row.commit,
    }


def _trials(row: Found) -> Iterator[dict[str, Any]]:
    for k, trial in enumerate(row.tried):
        dumped = trial.model_dump(exclude={"settings"})
        known = {row.primary.val if name == "value" else name: value for name, value in dumped.items()}
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
        row.primary.column.title.replace("test", "validation", 1): _value(row),
        "trials": f"{row.n_trials}{failed}",
        "epochs": shorter,
        "near": near,
        "search, s": "" if math.isnan(seconds) else f"{seconds:,.0f}",
        "verdict": VERDICTS[row.verdict],
    }


def _spread(row: Found) -> list[Trial]:
    return [trial for trial in row.tried if trial.stage == "spread"]


def _is_near(row: Found, trial: Trial) -> bool:
    if trial.value is None or row.value is None:
        return False
    gain, best = row.primary.gain, row.value
    return gain(trial.value) >= gain(best) - row.primary.size(NEAR, best)


def _value(row: Found) -> str:
    return "" if row.value is None else shown(replace(row.primary.column, interval=False), row.value)


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
