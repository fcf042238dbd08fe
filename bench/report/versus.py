"""Two folders of results as one table, cell by cell."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.primary import ACCURACY, Primary, keys_of
from bench.record.results import Results
from bench.record.samples import labelled
from bench.record.schema import SOURCES
from bench.report.blocks import Table
from bench.report.numbers import shown
from bench.report.summary import NAMES
from bench.stats import versus, versus_of

WORDS = frozenset([*NAMES.values(), *(column.title for column in versus_of(ACCURACY) if column.text)])
APART_FROM = frozenset((*SOURCES, "threads"))  # two commits are compared, and two machines
TIMES = Column("", "", "B over A", decimals=2)


def versus_frames(a: Results, b: Results) -> list[tuple[Primary, pd.DataFrame]]:
    """Each cell of either folder, told apart over both together, with the columns of `bench.stats.versus`.

    A frame for each primary metric: cells of different ones are not compared.
    """
    both = labelled([*a.unlabelled, *b.unlabelled], apart_from=APART_FROM)
    of_a = {id(row.record) for row in a.unlabelled}
    sides = [[row for row in both if (id(row.record) in of_a) == is_a] for is_a in (True, False)]
    frames = [a.frame(sides[0]), b.frame(sides[1])]
    compared = []
    for primary in {of.key: of for of in [*a.primaries, *b.primaries]}.values():
        left, right = (_judged_by(primary, frame) for frame in frames)
        if len(left) or len(right):
            compared.append((primary, versus(left, right, a.margin, ratios_of(a), primary)))
    return compared


def versus_frame(a: Results, b: Results) -> pd.DataFrame:
    """The cells of all primary metrics, each with the columns of its own."""
    return pd.concat([frame for _, frame in versus_frames(a, b)], ignore_index=True)


def _judged_by(primary: Primary, frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of one primary metric, with an empty column of it where the frame has none."""
    runs = frame[keys_of(frame) == primary.key]
    return runs if primary.test in runs else runs.assign(**{primary.test: math.nan})


def ratios_of(results: Results) -> list[Column]:
    """Costs: what is better lower, and stands in the smallest table."""
    columns = [column for column in results.columns if not column.metric]
    return [column for column in columns if column.better == "lower" and column.shown == "terminal"]


def versus_table(frame: pd.DataFrame, ratios: list[Column], primary: Primary = ACCURACY) -> Table:
    """Ready to be printed; columns in which every cell is empty are left out."""
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    cells = {title: [str(line[name]) for line in lines] for name, title in NAMES.items()}
    columns = versus_of(primary)
    cells |= {column.title: [_cell(column, line) for line in lines] for column in columns}
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
