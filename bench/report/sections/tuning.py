"""What the search for settings tried and found."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Table, Text
from bench.report.numbers import percent

SEARCHED = ["dataset", "method", "variant", "net", "setting", "best", "low", "high"]
WORDS = ("data set", "method", "variant", "net", "setting")
NOTE = (
    "Every method had the same number of trials, on validation data and with a seed that is not among those "
    "reported. A best value at the end of its range (*edge*) means that a wider one might serve the method better."
)


def section(results: Results) -> Iterator[Block]:
    rows = [_row(search) for search in results.searches]
    if not rows:
        return
    yield Data("tuning", pd.DataFrame(rows))
    yield Heading("Settings found by search")
    yield Text(NOTE)
    headers = [
        "data set",
        "method",
        "variant",
        "net",
        "setting",
        "best",
        "range",
        "validation acc, %",
        "trials",
        "edge",
    ]
    cells = [_cells(row) for row in rows]
    kept = [i for i in range(len(headers)) if any(line[i] for line in cells)]
    lines = [[line[i] or "-" for i in kept] for line in cells]
    yield Table([headers[i] for i in kept], lines, frozenset((*WORDS, "edge")))


def _row(search: dict[str, Any]) -> dict[str, Any]:
    scores = {trial["value"]: trial["val_acc"] for trial in search["tried"]}
    best = search["best"]
    return {
        **{name: search[name] for name in SEARCHED},
        "val_acc": math.nan if best is None else scores[best],
        "n_trials": len(scores),
        "n_failed": sum(score is None for score in scores.values()),
        "edge": best is not None and best in (min(scores), max(scores)),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    failed = f" ({row['n_failed']} failed)" if row["n_failed"] else ""
    return [
        row["dataset"],
        row["method"],
        row["variant"],
        row["net"],
        row["setting"],
        "none; default kept" if row["best"] is None else f"{row['best']:g}",
        f"{row['low']:g} to {row['high']:g}",
        percent(row["val_acc"]),
        f"{row['n_trials']}{failed}",
        "edge" if row["edge"] else "",
    ]
