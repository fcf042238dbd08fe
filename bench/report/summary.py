"""One line per row of the tables: means over the seeds that ended well, by the columns that instruments declare."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.results import Results
from bench.report.blocks import Table
from bench.report.numbers import shown
from bench.report.text import one_line
from bench.stats import (
    CONCLUSION,
    REFERENCE,
    ROW,
    TEST_ACC_DIFF,
    count_runs,
    finished,
    paired_differences,
    t_interval,
)

NAMES = {"dataset": "data set", "method": "method", "variant": "variant", "net": "net"}
RUNS_OK = "runs ok"
WORDS = frozenset(NAMES.values())


def ordered(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs in the order of all tables and figures: backprop first."""
    other = runs["method"] != REFERENCE
    return (
        runs.assign(_other=other)
        .sort_values(["dataset", "_other", "method", "net", "variant", "seed"], kind="stable", ignore_index=True)
        .drop(columns="_other")
    )


def summary_frame(runs: pd.DataFrame, columns: Sequence[Column], margin: float) -> pd.DataFrame:
    """Per row: `n_ok`, `n_runs`, `failures`; `X_mean` of every number X in its unit, with the half-width of its 95%
    interval over seeds in `X_ci95` where its column says so; the one word of a column of words; what
    `paired_differences` says of it.
    """
    lines = []
    for row, group in finished(runs).groupby(ROW, sort=False):
        line: dict[str, Any] = dict(zip(ROW, row, strict=True))
        for column in columns:
            if column.text:
                line[column.name] = ", ".join(dict.fromkeys(group[column.name].dropna()))
            else:
                interval = t_interval(group[column.name])
                line[f"{column.name}_mean"] = interval.mean
                if column.interval:
                    line[f"{column.name}_ci95"] = interval.half_width
        lines.append(line)
    means = pd.DataFrame(lines, columns=[*ROW, *(name for column in columns for name in _of(column))])
    return count_runs(runs).merge(means, on=ROW, how="left").merge(paired_differences(runs, margin), on=ROW, how="left")


def results_table(results: Results, runs: pd.DataFrame, *, where: str) -> Table:
    """The cells of some runs; columns in which every cell is empty are left out.

    where: `terminal`, which has fewer columns, or `page`, which names its data set elsewhere.
    """
    wanted = [c for c in _with_difference(results.columns) if c.shown == "terminal" or c.shown == where]
    frame = summary_frame(ordered(runs), results.columns, results.margin)
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    cells = {title: [str(line[name]) for line in lines] for name, title in NAMES.items()}
    if where == "page":
        del cells["data set"]
    cells[RUNS_OK] = [_runs_ok(line) for line in lines]
    for column in wanted:
        cells[column.title] = [_cell(column, line) for line in lines]
    kept = {title: values for title, values in cells.items() if any(values)}
    rows = [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)]
    return Table(list(kept), rows, WORDS | {c.title for c in wanted if c.text})


def terminal_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the result table, as plain one-line text without terminal codes.

    The cells are not rich markup: print them as `rich.text.Text`, so that a `[name]` stays one.
    """
    table = results_table(results, results.runs, where="terminal")
    return list(table.headers), [[one_line(value, limit=60) for value in row] for row in table.rows]


def shown_columns(results: Results) -> list[Column]:
    """Those of the page, in its order."""
    return [column for column in _with_difference(results.columns) if column.shown != "csv"]


def _with_difference(columns: Sequence[Column]) -> list[Column]:
    """The derived columns stand behind the first one, what they are the difference of."""
    return [*columns[:1], TEST_ACC_DIFF, CONCLUSION, *columns[1:]]


def _of(column: Column) -> list[str]:
    if column.text:
        return [column.name]
    return [f"{column.name}_mean", *([f"{column.name}_ci95"] if column.interval else [])]


def _cell(column: Column, line: Mapping[str, Any]) -> str:
    if column.text:
        value = line.get(column.name)
        return value if isinstance(value, str) else ""
    mean = line.get(f"{column.name}_mean", math.nan)
    other = line.get(f"{column.unless_equal}_mean", math.nan)
    if column.unless_equal and math.isclose(mean, other, abs_tol=1e-9):
        return ""
    text = shown(column, mean, line.get(f"{column.name}_ci95", math.nan))
    if text and column is TEST_ACC_DIFF and 1 < line["n_pairs"] < line["n_ok"]:
        return f"{text} (n={line['n_pairs']:.0f})"
    return text


def _runs_ok(line: Mapping[str, Any]) -> str:
    failures = f" ({line['failures']})" if line["failures"] else ""
    return f"{line['n_ok']}/{line['n_runs']}{failures}"
