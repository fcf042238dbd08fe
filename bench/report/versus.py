"""Two folders of results as one table, cell by cell."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.results import Results
from bench.record.samples import labelled
from bench.record.schema import SOURCES
from bench.report.blocks import Table
from bench.report.numbers import shown
from bench.report.summary import NAMES
from bench.stats import VERSUS, versus

WORDS = frozenset([*NAMES.values(), *(column.title for column in VERSUS if column.text)])
APART_FROM = frozenset((*SOURCES, "threads"))  # two commits are compared, and two machines
TIMES = Column("", "", "B over A", decimals=2)


def versus_frame(a: Results, b: Results) -> pd.DataFrame:
    """Each cell of either folder, told apart over both together, with the columns of `bench.stats.versus`."""
    both = labelled([*a.unlabelled, *b.unlabelled], apart_from=APART_FROM)
    of_a = {id(row.record) for row in a.unlabelled}
    sides = [[row for row in both if (id(row.record) in of_a) == is_a] for is_a in (True, False)]
    return versus(a.frame(sides[0]), b.frame(sides[1]), a.margin, ratios_of(a))


def ratios_of(results: Results) -> list[Column]:
    """Costs: what is better lower, and stands in the smallest table."""
    return [column for column in results.columns if column.better == "lower" and column.shown == "terminal"]


def versus_table(frame: pd.DataFrame, ratios: list[Column]) -> Table:
    """Ready to be printed; columns in which every cell is empty are left out."""
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    cells = {title: [str(line[name]) for line in lines] for name, title in NAMES.items()}
    cells |= {column.title: [_cell(column, line) for line in lines] for column in VERSUS}
    for column in ratios:
        title = f"{column.title.partition(',')[0]}, B/A"
        cells[title] = [shown(TIMES, line[f"{column.name}_ratio"]) for line in lines]
    kept = {title: values for title, values in cells.items() if any(values)}
    return Table(list(kept), [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)], WORDS)


def _cell(column: Column, line: Mapping[Any, Any]) -> str:
    value = line.get(column.name, line.get(f"{column.name}_mean"))
    if column.text:
        return value if isinstance(value, str) else ""
    if column.name == "identical":
        return "" if math.isnan(line["identical"]) else f"{line['identical']:.0f}/{line['n_pairs']}"
    return shown(column, math.nan if value is None else value, line.get(f"{column.name}_ci95", math.nan))
