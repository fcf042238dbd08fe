"""The answer first: who wins, at what cost, and how sure that is; what accuracy costs in memory, and in time."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import pandas as pd

from bench.api.column import Column
from bench.catalog.catalog import installed, reference
from bench.catalog.entry import RULE
from bench.record.primary import ACCURACY, PERCENT, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Block, Heading, Panel, Series, Text
from bench.report.charts import cost_axis, metric_axis, picture
from bench.report.numbers import shown
from bench.report.panels import by_row, spread_of_errors
from bench.report.rows import counted, ends_of_bar, named
from bench.report.summary import differences_of, ordered, rows_among
from bench.report.text import markdown as escape
from bench.stats import ROW, Verdict, comparable, disturbed, finished, front, t_interval

MOST_SEEDS = 40  # rows in a panel; more dots would hide the means
FAR = "network"  # of reverse mode: backprop in all but name
COSTS = {
    "memory": ("gpu_peak_alloc_bytes", "cpu_peak_rss_bytes", "live_peak_bytes"),  # the first that all runs have
    "time": ("train_s",),
}
READ = (
    "Left and {better} is better; on the line is what nothing beats in both. Marks: means, bars: 95% intervals, dots: "
    "seeds, where rows are few."
)
UNEVEN = " Where the axis is uneven, it is the distance to 100% that grows by equal factors."
CAPTIONS = {
    "memory": "Test {word} against peak memory. ",
    "time": "Test {word} against training time, without runs that others' work disturbed. ",
}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    if len(runs) and results.n_probed == len(results.probed):
        return  # nothing was trained, so nothing is asked
    if runs.empty and results.scaling:
        return
    yield Heading("Answer")
    judged = [(p, finished(of).dropna(subset=[p.test])) for p, of in apart(runs, results.primaries)]
    if all(ok.empty for _, ok in judged):
        yield Text("No run ended well, so there is no answer yet.")
        return
    known = {column.name: column for column in results.columns}
    differences = differences_of(results)
    no_rules = _no_rules(results)
    for primary, ok in judged:
        compared = rows_among(differences, ok).set_index(ROW)
        for dataset, group in ok.groupby("dataset"):
            memory = _first([known[name] for name in COSTS["memory"] if name in known], group)
            costs = [c for c in (memory, known.get("train_s")) if c is not None]
            yield Text(sentence(str(dataset), group, compared, primary, costs, no_rules))
    look = counted(runs)
    for primary, ok in judged:
        for cost, names in COSTS.items():
            panels = against_cost(ok, [known[name] for name in names if name in known], primary)
            yield from picture(named(f"accuracy_{cost}", primary), _caption(cost, primary), panels, look)


def _caption(cost: str, primary: Primary) -> str:
    read = READ.format(better="up" if primary.higher else "down")
    return CAPTIONS[cost].format(word=primary.word) + read + (UNEVEN if primary.is_percentage else "")


def sentence(
    dataset: str,
    ok: pd.DataFrame,
    differences: pd.DataFrame,
    primary: Primary,
    costs: Sequence[Column],
    no_rules: Collection[str],
) -> str:
    """Of one data set: the best rule without backprop through the whole net, held against its twin.

    ok: runs that ended well. differences: as `paired_differences` has them, by ROW. no_rules: the reference and the
    methods that show what a rule must beat, which are no answer themselves.
    """
    rows: dict[Any, pd.DataFrame] = dict(list(ok.groupby(ROW, sort=False)))
    base = escape(reference())
    rows_of_rules = {row: g for row, g in rows.items() if row[1] not in no_rules}
    others = {row: g for row, g in rows_of_rules.items() if not (g["reverse_mode"] == FAR).all()}
    among = others or rows
    best = max(among, key=lambda row: primary.gain(among[row][primary.test].mean()))
    mean, half_width, _ = t_interval(among[best][primary.test])
    whom = "the best rule without backprop through the whole net" if others else "the best row"
    value = " ".join(filter(None, (shown(primary.column, mean, half_width), primary.unit)))
    text = f"**{escape(dataset)}:** {whom} is **{_name(best)}** with {value} test {escape(primary.word)}"
    difference = f"{primary.test}_diff_mean"
    if best not in differences.index or pd.isna(differences.loc[best, difference]):
        return f"{text}; no {base} on the same net and seeds stands beside it."
    beside = differences.loc[best]
    way = _way(float(beside[difference]), primary)
    twin = next((g for row, g in rows.items() if row == (dataset, reference(), best[2], beside["twin_variant"])), None)
    text += f", {way} {base} on the same net ({beside['conclusion']})"
    text += "" if twin is None else _at(costs, among[best], twin)
    tested = [word for row, word in differences["verdict"].items() if row in others and isinstance(word, str)]
    if not tested:
        return f"{text}."
    counts = ", ".join(f"{tested.count(word)} {primary.told(word)}" for word in get_args(Verdict) if word in tested)
    return f"{text}. Of {len(tested)} such rows against {base}: {counts}."


def _way(difference: float, primary: Primary) -> str:
    """As in `0.35 points below`."""
    size, column = abs(primary.scale * difference), primary.column
    if column.scale == PERCENT:
        if size < 0.005:
            return "level with"
        text = f"{size:.2f} points"
    else:
        text = shown(replace(column, interval=False), abs(difference)) or "0"
        if difference == 0:
            return "level with"
        text = " ".join(filter(None, (text, primary.unit)))
    return f"{text} {'above' if difference > 0 else 'below'}"


def _at(costs: Sequence[Column], ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """At what part of the twin's costs; never of times that others' work has disturbed."""
    fair = [column for column in costs if comparable(column, ours, theirs)]
    ratios = [f"{ratio} {_what(column)}" for column in fair if (ratio := _ratio(column, ours, theirs))]
    text = f", at {' and '.join(ratios)}" if ratios else ""
    if len(fair) == len(costs):
        return text
    return f"{text}; others were at work on the machine, so times are not compared: run again on a quiet one"


def _no_rules(results: Results) -> frozenset[str]:
    """The reference and the controls, as their cards say."""
    methods = (results.catalog or installed()).methods
    return frozenset(name for name in set(results.runs["method"]) & methods.keys() if methods[name].role != RULE)


def against_cost(ok: pd.DataFrame, costs_of: Sequence[Column], primary: Primary = ACCURACY) -> list[Panel]:
    """The primary metric (mean, 95% interval, seeds) against a cost: the first of these columns that all runs have."""
    panels = []
    for dataset, group in ok.groupby("dataset"):
        column = _first(costs_of, group)
        if column is None:
            continue
        if column.timed:
            group = group.drop(disturbed(group).index)
        if group.empty:
            continue
        panel = group.dropna(subset=[primary.test]).assign(cost=column.scale * group[column.name])
        seeds, means = [], []
        n_rows = panel.groupby(["method", "net", "variant"]).ngroups
        for key, of_row in by_row(panel):
            values = primary.scale * of_row[primary.test]
            interval = t_interval(values)
            low, high = ends_of_bar(interval, primary)
            if n_rows <= MOST_SEEDS:
                seeds.append(Series(key, "seeds", of_row["cost"].tolist(), values.tolist()))
            cost = [of_row["cost"].mean()]
            means.append(Series(key, "mean", cost, [interval.mean], [low], [high], labelled=key[0] == reference()))
        best = front([(mean.x[0], primary.gain(mean.y[0])) for mean in means])
        line = Series(means[best[0]].row, "front", [means[k].x[0] for k in best], [means[k].y[0] for k in best])
        axis = cost_axis(column.title, panel["cost"])
        uneven = primary.is_percentage and spread_of_errors(mean.y[0] for mean in means)
        y = replace(metric_axis(primary, "test"), errors=uneven)
        panels.append(Panel(str(dataset), axis, y, [line, *seeds, *means], str(dataset)))
    return panels


def _first(columns: Sequence[Column], ok: pd.DataFrame) -> Column | None:
    """The first that all runs have."""
    return next((c for c in columns if c.name in ok and len(ok) and ok[c.name].notna().all()), None)


def _name(row: Any) -> str:
    _, method, net, variant = row
    return escape(" ".join(filter(None, (method, f"({net})", variant))))


def _ratio(column: Column, ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    ratio = ours[column.name].mean() / theirs[column.name].mean()
    return f"{ratio:.2f} x" if ratio > 0 and ratio != float("inf") else ""


def _what(column: Column) -> str:
    return {"train_s": "its training time"}.get(column.name, f"its memory ({column.title.partition(',')[0]})")
