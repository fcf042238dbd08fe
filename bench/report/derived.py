"""Tables of what is derived from runs: a line per row, by the columns that declare it, each explained below."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.report.blocks import Block, Facts, Table
from bench.report.numbers import shown
from bench.report.summary import NAMES
from bench.report.text import markdown as escape
from bench.stats import CONCLUSION


def table(frame: pd.DataFrame, columns: Sequence[Column]) -> Iterator[Block]:
    """The table of what is shown on a page, without columns in which every cell is empty, and what the others mean.

    A number stands in the column of its name, or as `X_mean` with its interval in `X_ci95`.
    """
    columns = [column for column in columns if column.shown != "csv"]
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    cells = {title: [str(line[name]) for line in lines] for name, title in NAMES.items() if name in frame}
    cells |= {column.title: [_cell(column, line) for line in lines] for column in columns}
    kept = {title: values for title, values in cells.items() if any(values)}
    words = {*NAMES.values(), *(column.title for column in columns if column.text)}
    rows = [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)]
    yield Table(list(kept), rows, frozenset(words))
    new = [column for column in columns if column.title in kept and not _is_explained_elsewhere(column)]
    yield Facts([(column.title, escape(column.what)) for column in new], strong=True)


def _is_explained_elsewhere(column: Column) -> bool:
    """Whether it is in the table of results, too."""
    return column == CONCLUSION or column.name.endswith("_diff")


def _cell(column: Column, line: Mapping[Any, Any]) -> str:
    value = line.get(column.name, line.get(f"{column.name}_mean"))
    if column.text:
        return value if isinstance(value, str) else ""
    return shown(column, math.nan if value is None else value, line.get(f"{column.name}_ci95", math.nan))
