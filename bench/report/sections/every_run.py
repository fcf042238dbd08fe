"""Every run: its numbers, what it was asked to do, how it ended, and the command that repeats it."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.results import Results
from bench.report.blocks import Block, Cards, Heading, Table, Text
from bench.report.numbers import exact, shown
from bench.report.reproduce import command
from bench.report.style import looks
from bench.report.summary import NAMES, ordered
from bench.stats import ROW

NOTE = "In `index.html` each opens, with its settings and the command that repeats it; the numbers: `tables/runs.csv`."
TOLD_ELSEWHERE = {"method", "dataset", "net", "seed", "run_id", "method_settings", "net_settings", "schema"}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    if runs.empty:
        return
    yield Heading("Every run")
    yield Text(NOTE)
    yield cards(results, runs)


def cards(results: Results, runs: pd.DataFrame) -> Cards:
    """The runs, with every measured column that is not empty throughout."""
    columns = [c for c in results.columns if c.name in runs and runs[c.name].notna().any()]
    lines: list[dict[Any, Any]] = runs.to_dict("records")
    headers = [*NAMES.values(), "seed", "status", *(column.title for column in columns)]
    rows = []
    for line in lines:
        names = [str(line[name]) for name in ROW]
        rows.append([*names, exact(line["seed"]), str(line["status"]), *(_cell(c, line) for c in columns)])
    words = frozenset({*NAMES.values(), "status", *(c.title for c in columns if c.text)})
    of = [(str(line["dataset"]), (str(line["method"]), str(line["net"]), str(line["variant"]))) for line in lines]
    return Cards(Table(headers, rows, words), of, looks(runs), [_about(results, line) for line in lines])


def _about(results: Results, line: Mapping[Any, Any]) -> dict[str, Any]:
    spec = results.specs.get(line["run_id"], {})
    environment = results.environments.get(str(line.get("env_id")), {})
    known = results.catalog is None or line["method"] in results.catalog.methods
    facts = {
        "run": line["run_id"],
        "reason": line["reason"],
        "command": command(spec, [spec["seed"]], plugin=not known) if spec else "",
        "commit": environment.get("git_commit"),
        "environment": line.get("env_id"),
        "method settings": spec.get("method_settings"),
        "net settings": spec.get("net_settings"),
        "experiment": {name: value for name, value in spec.items() if name not in TOLD_ELSEWHERE and value is not None},
        "end of stderr": results.stderr.get(line["run_id"]),
    }
    return {name: value for name, value in facts.items() if value}


def _cell(column: Column, line: Mapping[Any, Any]) -> str:
    value = line[column.name]
    if column.text:
        return value if isinstance(value, str) else ""
    return shown(column, value).partition(" (n=1)")[0]
