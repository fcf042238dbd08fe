"""The tables that runs brought along, as files; those of instruments from outside as pictures, too."""

from collections.abc import Iterator

import pandas as pd
from pandas.api.types import is_numeric_dtype

from bench.api.errors import PluginError
from bench.api.instrument import Chart
from bench.record.results import Results
from bench.record.schema import KEY
from bench.report.blocks import Axis, Block, Data, Heading, Panel, Series
from bench.report.charts import picture
from bench.report.panels import by_row, datasets_of
from bench.report.sections.steps import TABLE as DRAWN_BY_STEPS
from bench.report.style import looks
from bench.report.summary import ordered
from bench.report.text import one_line
from bench.stats import finished

PLACES = ("epoch", "step")  # of training, no measurements
MOST_PANELS, MOST_BANDS = 9, 8


def section(results: Results) -> Iterator[Block]:
    for name in results.tables:
        if name != DRAWN_BY_STEPS:
            table = results.table(name)
            yield Data(name, table)
            yield from _pictures(results, name, table)


def _pictures(results: Results, name: str, table: pd.DataFrame) -> Iterator[Block]:
    runs = ordered(results.runs)
    points = table[table["run_id"].isin(finished(runs)["run_id"])]
    title, charts = declared(results, name, points)
    drawn = [
        block
        for k, chart in enumerate(charts)
        for block in picture(f"{name}_{k}", _caption(chart, points), panels_of(points, chart), looks(runs))
    ]
    if drawn:
        yield Heading(title)
        yield from drawn


def declared(results: Results, name: str, points: pd.DataFrame) -> tuple[str, tuple[Chart, ...]]:
    """The heading and the charts of a table: as its instrument declares them, else a chart of each number.

    None for tables of the suite's own instruments, which have sections of their own.
    """
    entry = results.catalog.instruments.get(name) if results.catalog else None
    if entry is None:
        return name, guessed(points)
    if entry.is_ours:
        return name, ()
    try:
        charts: tuple[Chart, ...] = entry.load().charts
    except PluginError:  # told elsewhere
        charts = ()
    fields = set(points.columns)
    known = [chart for chart in charts if {chart.x, chart.y, chart.panels or chart.x} <= fields]
    return str(entry.card.get("title") or name).rstrip("."), tuple(known) if charts else guessed(points)


def guessed(points: pd.DataFrame) -> tuple[Chart, ...]:
    """Each number against the epoch, or else against the first number; a panel for each word of the first text."""
    own = [str(name) for name in points if name not in (*KEY, *PLACES) and points[name].notna().any()]
    numbers = [name for name in own if is_numeric_dtype(points[name])]
    words = next((name for name in own if name not in numbers), None)
    x = "epoch" if "epoch" in points else next(iter(numbers), "")
    return tuple(Chart(name, x, words) for name in numbers if name != x)


def panels_of(points: pd.DataFrame, chart: Chart) -> list[Panel]:
    """A panel for each data set and each value of the chart's `panels`: means over seeds, their range as a band."""
    if not (is_numeric_dtype(points[chart.x]) and is_numeric_dtype(points[chart.y])):
        return []
    points = points.dropna(subset=[chart.x, chart.y])
    points = points[points[chart.y] > 0] if chart.log else points
    x = Axis(chart.x, whole=bool((points[chart.x] % 1 == 0).all()))
    y = Axis(chart.title or chart.y, log=chart.log)
    panels = []
    for dataset in datasets_of(points):
        here = points[points["dataset"] == dataset]
        for value in _values(here, chart):
            of = here if chart.panels is None else here[here[chart.panels] == value]
            title = dataset if chart.panels is None else f"{dataset}, {value}"
            panels.append(Panel(title, x, y, list(_lines(of, chart)), dataset))
    return panels


def _values(here: pd.DataFrame, chart: Chart) -> list[object]:
    """The values that get a panel each, in the order of the table."""
    return [None] if chart.panels is None else list(here[chart.panels].dropna().unique()[:MOST_PANELS])


def _lines(of: pd.DataFrame, chart: Chart) -> Iterator[Series]:
    rows = list(by_row(of))
    for key, group in rows:
        by_seed = group.groupby([chart.x, "run_id"])[chart.y].mean()
        at = by_seed.groupby(level=0).agg(["mean", "min", "max"])
        low, high = (at["min"].tolist(), at["max"].tolist()) if len(rows) <= MOST_BANDS else ([], [])
        yield Series(key, "line", at.index.tolist(), at["mean"].tolist(), low, high)


def _caption(chart: Chart, points: pd.DataFrame) -> str:
    n = 0 if chart.panels is None else points[chart.panels].nunique()
    left_out = f" The first {MOST_PANELS} of {n} by {chart.panels}." if n > MOST_PANELS else ""
    return one_line(f"{chart.caption or f'{chart.title or chart.y} against {chart.x}, means over seeds.'}{left_out}")
