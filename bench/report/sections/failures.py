"""Every run that did not end well, with its reason."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Table
from bench.report.numbers import exact
from bench.report.summary import NAMES, ordered
from bench.stats import ROW

COLUMNS = {name: NAMES[name] for name in ROW}
COLUMNS |= {"seed": "seed", "status": "status", "reason": "reason", "run_id": "run"}


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    failed = runs.loc[runs["status"] != "ok", list(COLUMNS)]
    yield Data("failures", failed)
    if failed.empty:
        return
    cells = {title: [_cell(value) for value in failed[name]] for name, title in COLUMNS.items()}
    kept = {title: values for title, values in cells.items() if any(values)}
    yield Heading("Failed runs")
    rows = [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)]
    yield Table(list(kept), rows, frozenset(kept) - {"seed"})


def _cell(value: object) -> str:
    return exact(value) if isinstance(value, (int, float)) else str(value or "")
