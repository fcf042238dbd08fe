r"""The table of results for a paper: booktabs and siunitx, an accuracy with its interval as `98.22(110)`.

    \usepackage{booktabs, siunitx}

Bold is a primary metric that is higher, or lower, than backprop's by the tests of the report; nothing else is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.api.errors import ConfigError, unknown
from bench.catalog.catalog import reference
from bench.record.primary import Primary
from bench.record.results import Results
from bench.report.numbers import decimals_of, in_unit
from bench.report.summary import NAMES, differences_of, ordered, summary_frame, with_difference
from bench.report.text import one_line
from bench.stats import finished

# [ and * after \\ would be its arguments
_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
    }
)


def escape(value: object) -> str:
    """The value as text that LaTeX sets as it is. What LaTeX's fonts lack stays, for engines that have it."""
    return one_line(value).translate(_SPECIAL)


def results_tex(results: Results, columns: Sequence[str] = ()) -> str:
    """A `table` environment over all runs; a block of lines a data set.

    columns: names of quantities; else those of the terminal's table. One that is empty throughout is left out.
    Raises: ConfigError for a name that nothing has measured.
    """
    runs = ordered(results.runs)
    frame = summary_frame(runs, results.columns, differences_of(results))
    lines: list[dict[Any, Any]] = frame.to_dict("records")
    names = [name for name in ("method", "net", "variant") if frame[name].nunique() > 1 or name == "method"]
    wanted = _chosen(results, columns)
    cells = {c.name: [_cell(c, line) for line in lines] for c in wanted}
    wanted = [c for c in wanted if any(cells[c.name])]
    heads = [f"{{{escape(NAMES[name])}}}" for name in names]
    heads += [f"{{{escape(c.title)}}}" for c in wanted] + ["{ok}"]
    width = len(heads)
    body = []
    for dataset, at in frame.groupby("dataset", sort=False).indices.items():
        body.append(rf"\midrule \multicolumn{{{width}}}{{l}}{{{escape(dataset)}}} \\")
        for k in at:
            words = [escape(lines[k][name]) for name in names]
            numbers = [cells[c.name][k] or "{--}" for c in wanted]
            body.append(" & ".join([*words, *numbers, f"{lines[k]['n_ok']}/{lines[k]['n_runs']}"]) + r" \\")
    spec = "l" * len(names) + "".join(_spec(cells[c.name]) for c in wanted) + "r"
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_caption(runs, results.primaries)}}}",
            r"  \sisetup{separate-uncertainty = true, detect-weight = true, mode = text}",
            rf"  \begin{{tabular}}{{{spec}}}",
            r"    \toprule",
            f"    {' & '.join(heads)} " + r"\\",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _chosen(results: Results, names: Sequence[str]) -> list[Column]:
    declared = {c.name: c for c in with_difference(results.columns) if not c.text}
    for name in names:
        if name not in declared:
            raise ConfigError(unknown("column", name, declared))
    return [declared[name] for name in names] or [c for c in declared.values() if c.shown == "terminal"]


def _caption(runs: pd.DataFrame, primaries: Sequence[Primary]) -> str:
    words = " or ".join(primary.word for primary in primaries)
    seeds = finished(runs).groupby(["dataset", "method", "net", "variant"])["seed"].nunique()
    n = "" if seeds.empty else f", $n = {seeds.min()}$" + (f" to {seeds.max()}" if seeds.max() > seeds.min() else "")
    return (
        rf"Means and 95\,\% $t$-intervals over seeds{n}. ok: runs that ended well, of those attempted. Bold: test "
        rf"{escape(words)} differs from that of {escape(reference())} on the same net (paired $t$-test, 5\,\% after "
        "Bonferroni)."
    )


def _cell(column: Column, line: Mapping[Any, Any]) -> str:
    """As `98.22(110)`, as `2.1`, or empty."""
    mean, half = (line.get(f"{column.name}_{what}", math.nan) for what in ("mean", "ci95"))
    other = line.get(f"{column.unless_equal}_mean", math.nan)
    if math.isnan(mean) or mean == column.blank_at or math.isclose(mean, other, abs_tol=1e-9):
        return ""
    places = decimals_of(column, mean)
    text = f"{in_unit(column, mean):.{places}f}"
    if column.interval and not math.isnan(half):
        text += f"({round(in_unit(column, half) * 10**places)})"
    told = line.get("verdict") in ("higher", "lower") and pd.notna(line.get(f"{column.name}_diff_mean"))
    return rf"\bfseries {text}" if told else text


def _spec(cells: Sequence[str]) -> str:
    """The format of a column of numbers: its widest parts before the point, behind it, and in the interval."""
    before = behind = spread = 0
    signed = False
    for cell in cells:
        number, _, uncertainty = cell.removeprefix(r"\bfseries ").partition("(")
        signed = signed or number.startswith("-")
        whole, _, fraction = number.lstrip("-").partition(".")
        before, behind = max(before, len(whole)), max(behind, len(fraction))
        spread = max(spread, len(uncertainty.rstrip(")")))
    return f"S[table-format = {'-' if signed else ''}{before}.{behind}{f'({spread})' if spread else ''}]"
