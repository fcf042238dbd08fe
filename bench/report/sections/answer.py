"""The answer first: who wins, at what cost, and how sure that is; what accuracy costs in memory, and in time."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import pandas as pd

from bench.api.column import Column
from bench.record.results import Results
from bench.report.blocks import Block, Heading, Panel, Series, Text
from bench.report.charts import ACCURACY, cost_axis, picture
from bench.report.numbers import shown
from bench.report.panels import by_row, spread_of_errors
from bench.report.rows import counted, ends_of_bar
from bench.report.summary import differences_of, ordered
from bench.report.text import markdown as escape
from bench.stats import REFERENCE, ROW, Verdict, comparable, disturbed, finished, front, t_interval

MOST_SEEDS = 40  # rows in a panel; more dots would hide the means
FAR = "network"  # of reverse mode: backprop in all but name
COSTS = {
    "memory": ("gpu_peak_alloc_bytes", "cpu_peak_rss_bytes", "live_peak_bytes"),  # the first that all runs have
    "time": ("train_s",),
}
READ = (
    "Left and up is better; on the line is what nothing beats in both. Marks: means, bars: 95% intervals, dots: seeds, "
    "where rows are few. Where the axis is uneven, it is the distance to 100% that grows by equal factors."
)
CAPTIONS = {
    "memory": f"Test accuracy against peak memory. {READ}",
    "time": f"Test accuracy against training time, without runs that others' work disturbed. {READ}",
}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    if len(runs) and results.n_probed == len(results.probed):
        return  # nothing was trained, so nothing is asked
    if runs.empty and results.scaling:
        return
    yield Heading("Answer")
    ok = finished(runs).dropna(subset=["test_acc"])
    if ok.empty:
        yield Text("No run ended well, so there is no answer yet.")
        return
    known = {column.name: column for column in results.columns}
    differences = differences_of(results).set_index(ROW)
    controls = _controls(results)
    for dataset, group in ok.groupby("dataset"):
        memory = _first([known[name] for name in COSTS["memory"] if name in known], group)
        costs = [c for c in (memory, known.get("train_s")) if c is not None]
        yield Text(sentence(str(dataset), group, differences, known["test_acc"], costs, controls))
    look = counted(runs)
    for cost, names in COSTS.items():
        panels = accuracy_against(ok, [known[name] for name in names if name in known])
        yield from picture(f"accuracy_{cost}", CAPTIONS[cost], panels, look)


def sentence(
    dataset: str,
    ok: pd.DataFrame,
    differences: pd.DataFrame,
    accuracy: Column,
    costs: Sequence[Column],
    controls: Collection[str] = (),
) -> str:
    """Of one data set: the best rule without backprop through the whole net, held against its twin.

    ok: runs that ended well. differences: as `paired_differences` has them, by ROW. controls: methods that show what a
    rule must beat, which are no answer themselves.
    """
    rows: dict[Any, pd.DataFrame] = dict(list(ok.groupby(ROW, sort=False)))
    rows_of_rules = {row: g for row, g in rows.items() if row[1] not in (REFERENCE, *controls)}
    others = {row: g for row, g in rows_of_rules.items() if not (g["reverse_mode"] == FAR).all()}
    among = others or rows
    best = max(among, key=lambda row: among[row]["test_acc"].mean())
    mean, half_width, _ = t_interval(among[best]["test_acc"])
    whom = "the best rule without backprop through the whole net" if others else "the best row"
    text = (
        f"**{escape(dataset)}:** {whom} is **{_name(best)}** with {shown(accuracy, mean, half_width)} % test accuracy"
    )
    if best not in differences.index or pd.isna(differences.loc[best, "test_acc_diff_mean"]):
        return f"{text}; no backprop on the same net and seeds stands beside it."
    beside = differences.loc[best]
    points = 100 * float(beside["test_acc_diff_mean"])
    way = "level with" if abs(points) < 0.005 else f"{abs(points):.2f} points {'above' if points > 0 else 'below'}"
    twin = next((g for row, g in rows.items() if row == (dataset, REFERENCE, best[2], beside["twin_variant"])), None)
    text += f", {way} backprop on the same net ({beside['conclusion']})"
    text += "" if twin is None else _at(costs, among[best], twin)
    tested = [word for row, word in differences["verdict"].items() if row in others and isinstance(word, str)]
    if not tested:
        return f"{text}."
    counts = ", ".join(f"{tested.count(word)} {word}" for word in get_args(Verdict) if word in tested)
    return f"{text}. Of {len(tested)} such rows against backprop: {counts}."


def _at(costs: Sequence[Column], ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """At what part of the twin's costs; never of times that others' work has disturbed."""
    fair = [column for column in costs if comparable(column, ours, theirs)]
    ratios = [f"{ratio} {_what(column)}" for column in fair if (ratio := _ratio(column, ours, theirs))]
    text = f", at {' and '.join(ratios)}" if ratios else ""
    if len(fair) == len(costs):
        return text
    return f"{text}; others were at work on the machine, so times are not compared: run again on a quiet one"


def _controls(results: Results) -> frozenset[str]:
    """The methods whose cards say that they are controls."""
    methods = {} if results.catalog is None else results.catalog.methods
    return frozenset(name for name, entry in methods.items() if entry.card.get("control"))


def accuracy_against(ok: pd.DataFrame, costs_of: Sequence[Column]) -> list[Panel]:
    """Test accuracy (mean, 95% interval, seeds) against a cost: the first of these columns that all runs have."""
    panels = []
    for dataset, group in ok.groupby("dataset"):
        column = _first(costs_of, group)
        if column is None:
            continue
        if column.timed:
            group = group.drop(disturbed(group).index)
        if group.empty:
            continue
        panel = group.dropna(subset=["test_acc"]).assign(cost=column.scale * group[column.name])
        seeds, means = [], []
        n_rows = panel.groupby(["method", "net", "variant"]).ngroups
        for key, of_row in by_row(panel):
            accuracies = 100 * of_row["test_acc"]
            interval = t_interval(accuracies)
            low, high = ends_of_bar(interval)
            if n_rows <= MOST_SEEDS:
                seeds.append(Series(key, "seeds", of_row["cost"].tolist(), accuracies.tolist()))
            cost = [of_row["cost"].mean()]
            means.append(Series(key, "mean", cost, [interval.mean], [low], [high], labelled=key[0] == REFERENCE))
        best = front([(mean.x[0], mean.y[0]) for mean in means])
        line = Series(means[best[0]].row, "front", [means[k].x[0] for k in best], [means[k].y[0] for k in best])
        axis = cost_axis(column.title, panel["cost"])
        y = replace(ACCURACY, errors=spread_of_errors(mean.y[0] for mean in means))
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
