"""Every run that did not end well, with its reason."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Code, Data, Heading, Table
from bench.report.numbers import exact
from bench.report.summary import NAMES, ordered
from bench.stats import ROW

MOST_TAILS = 20  # the others stand in the records
MOST_REASONS = 12  # lines below the terminal's table
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
    told: dict[str, list[str]] = {}
    for run_id in failed["run_id"]:
        if text := results.stderr.get(run_id):
            told.setdefault(text, []).append(str(run_id))
    for text, run_ids in list(told.items())[:MOST_TAILS]:
        more = f" and {len(run_ids) - 1} more that wrote the same" if len(run_ids) > 1 else ""
        yield Code(f"The end of stderr of {run_ids[0]}{more}", text)


def reasons(results: Results, most: int = MOST_REASONS) -> list[str]:
    """A line for each row of the tables with runs that did not end well: how many, how they ended, and why."""
    runs = results.runs
    failed = runs[runs["status"] != "ok"]
    counts: dict[str, int] = {}
    for run in failed.to_dict("records"):
        variant = f" ({run['variant']})" if run["variant"] else ""
        line = f"{run['method']} on {run['net']}, {run['dataset']}{variant}: {run['status']}: {run['reason']}"
        counts[line] = counts.get(line, 0) + 1
    lines = [line if n == 1 else f"{line} ({n} runs)" for line, n in counts.items()]
    left = len(lines) - most
    return [*lines[:most], *([f"{left} more in tables/failures.csv of the report"] if left > 0 else [])]


def _cell(value: object) -> str:
    return exact(value) if isinstance(value, (int, float)) else str(value or "")
