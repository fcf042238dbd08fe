"""One line per row of the tables: means over the seeds that ended well, by the columns that instruments declare."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from bench.api.column import Column
from bench.catalog.catalog import reference
from bench.record.primary import Primary
from bench.record.results import Results
from bench.report.blocks import Board, Table
from bench.report.numbers import shown
from bench.report.style import looks
from bench.report.text import one_line
from bench.stats import (
    BY,
    CONCLUSION,
    ROW,
    costs_to_target,
    count_runs,
    difference_of,
    finished,
    paired_differences,
)

NAMES = {"dataset": "data set", "method": "method", "variant": "variant", "net": "net"}
RUNS_OK = "runs ok"
REACH = "reverse_mode"
DISTURBED = "(disturbed)"  # behind a time, rate or energy of a row during which others were at work
WORDS = frozenset(NAMES.values())


def ordered(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs in the order of all tables and figures: the reference first."""
    other = runs["method"] != reference()
    return (
        runs.assign(_other=other)
        .sort_values(["dataset", "_other", "method", "net", "variant", "seed"], kind="stable", ignore_index=True)
        .drop(columns="_other")
    )


@lru_cache(maxsize=1)
def differences_of(results: Results) -> pd.DataFrame:
    """`paired_differences` of the runs, which several sections read."""
    return paired_differences(ordered(results.runs), results.margin, results.primaries)


@lru_cache(maxsize=1)
def costs_of(results: Results) -> pd.DataFrame:
    """`costs_to_target` of the runs, which several sections read."""
    return costs_to_target(ordered(results.runs), results.curves, results.target, results.primaries)


def rows_among(frame: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The lines of a frame of rows that are of these runs."""
    there = set(runs[ROW].itertuples(index=False, name=None))
    among = [row in there for row in frame[ROW].itertuples(index=False, name=None)]
    return frame[pd.Series(among, index=frame.index, dtype=bool)]


def summary_frame(runs: pd.DataFrame, columns: Sequence[Column], differences: pd.DataFrame) -> pd.DataFrame:
    """Per row: `n_ok`, `n_runs`, `failures`; `X_mean` of every number X in its unit, with the half-width of its 95%
    interval over seeds in `X_ci95` where its column says so; the one word of a column of words; what
    `paired_differences` says of it, which are given.
    """
    ok = finished(runs)
    groups = ok.groupby(ROW, sort=False)
    numbers = [column.name for column in columns if not column.text]
    mean, sd, n = (groups[numbers].agg(of) for of in ("mean", "std", "count"))
    half_width: pd.DataFrame = (
        sd / n**0.5 * stdtrit((n - 1).where(n > 1), 0.975)
    )  # as t_interval has it, of all rows at once
    found: dict[str, Any] = {}
    for column in columns:
        if column.text:
            found[column.name] = groups[column.name].agg(lambda words: ", ".join(dict.fromkeys(words.dropna())))
        else:
            found[f"{column.name}_mean"] = mean[column.name]
            if column.interval:
                found[f"{column.name}_ci95"] = half_width[column.name]
    means = pd.DataFrame(found, index=mean.index).reset_index()
    return count_runs(runs).merge(means, on=ROW, how="left").merge(differences, on=ROW, how="left")


def board(frame: pd.DataFrame, columns: Sequence[Column], costs: Sequence[Column]) -> Board:
    """The rows of `summary_frame`, which may have costs beside it, with every declared column that is not empty."""
    columns = [*with_difference(columns), *costs]
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    filled = [(column, [_cell(column, line) for line in lines]) for column in columns]
    filled = [(column, cells) for column, cells in filled if any(cells)]
    texts = [[str(line[name]) for name in NAMES] + [_runs_ok(line)] for line in lines]
    rows = [[*text, *(cells[k] for _, cells in filled)] for k, text in enumerate(texts)]
    values = [
        [*[None] * len(NAMES), line["n_ok"] / line["n_runs"], *(_value(column, line) for column, _ in filled)]
        for line in lines
    ]
    headers = [*NAMES.values(), RUNS_OK, *(column.title for column, _ in filled)]
    words = WORDS | {column.title for column, _ in filled if column.text}
    keys = [(line["dataset"], (line["method"], line["net"], line["variant"])) for line in lines]
    more = frozenset(c.title for c, _ in filled if c.shown == "csv") | {c.title for c in costs}
    better = {column.title: column.better for column, _ in filled if column.better}
    reach = [line[REACH] if isinstance(line.get(REACH), str) else "" for line in lines]
    return Board(Table(headers, rows, words), keys, reach, looks(frame), values, more, better)


def board_of(results: Results) -> Board:
    """All rows, without what they cost."""
    frame = summary_frame(ordered(results.runs), results.columns, differences_of(results))
    return board(frame, results.columns, ())


def by_dataset(board: Board) -> Iterator[tuple[str, Table]]:
    """A table per data set, without what is shown on demand."""
    for dataset in dict.fromkeys(dataset for dataset, _ in board.lines):
        rows = [row for row, (of, _) in zip(board.table.rows, board.lines, strict=True) if of == dataset]
        table = Table(board.table.headers, rows, board.table.words)
        yield dataset, kept_columns(table, lambda header: header != NAMES["dataset"] and header not in board.more)


def results_table(results: Results) -> Table:
    """The smallest table of results, as a terminal or a notebook shows it."""
    shown = {column.title for column in with_difference(results.columns) if column.shown == "terminal"}
    return kept_columns(board_of(results).table, lambda header: header in {*NAMES.values(), RUNS_OK, *shown})


def terminal_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the result table, as plain one-line text without terminal codes.

    The cells are not rich markup: print them as `rich.text.Text`, so that a `[name]` stays one.
    """
    table = results_table(results)
    return list(table.headers), [[one_line(value, limit=60) for value in row] for row in table.rows]


def kept_columns(table: Table, wanted: Callable[[str], bool]) -> Table:
    """The columns that are wanted and not empty throughout, their empty cells as a dash."""
    kept = [k for k, header in enumerate(table.headers) if wanted(header) and any(row[k] for row in table.rows)]
    rows = [[row[k] or "-" for k in kept] for row in table.rows]
    return Table([table.headers[k] for k in kept], rows, table.words)


def shown_columns(results: Results) -> list[Column]:
    """Those of the page, in its order."""
    return [column for column in with_difference(results.columns) if column.shown != "csv"]


def with_difference(columns: Sequence[Column]) -> list[Column]:
    """The derived columns stand behind what they are the difference of: primary metrics, which tables have first."""
    judged = [
        k
        for k, column in enumerate(columns)
        if k == 0 or (column.metric and column.name == f"test_{column.metric}" and column.shown == "terminal")
    ]
    found: list[Column] = []
    for k, column in enumerate(columns):
        found.append(column)
        found += [difference_of(Primary(column))] if k in judged else []
        found += [CONCLUSION] if k == judged[-1] else []
    return found


def _cell(column: Column, line: Mapping[str, Any]) -> str:
    if column.text:
        value = line.get(column.name)
        return value if isinstance(value, str) else ""
    mean = line.get(f"{column.name}_mean", math.nan)
    other = line.get(f"{column.unless_equal}_mean", math.nan)
    if column.unless_equal and math.isclose(mean, other, abs_tol=1e-9):
        return ""
    text = shown(column, mean, line.get(f"{column.name}_ci95", math.nan))
    if text and column.timed and line.get(BY):
        return f"{text} {DISTURBED}"
    if text and column.name.endswith("_diff") and 1 < line["n_pairs"] < line["n_ok"]:
        return f"{text} (n={line['n_pairs']:.0f})"
    return text


def _value(column: Column, line: Mapping[str, Any]) -> float | None:
    """What its cell is sorted by."""
    value = line.get(f"{column.name}_mean", line.get(column.name))
    return float(value) if isinstance(value, (int, float)) and value == value else None


def _runs_ok(line: Mapping[str, Any]) -> str:
    failures = f" ({line['failures']})" if line["failures"] else ""
    return f"{line['n_ok']}/{line['n_runs']}{failures}"
