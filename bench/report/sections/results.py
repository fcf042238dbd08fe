"""The results: a table per data set, and the unrounded numbers behind it."""

from collections.abc import Iterator

from bench.record import primary
from bench.record.results import Results
from bench.record.schema import FIRST_METRIC, PRIMARY
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.summary import board, costs_of, differences_of, ordered, summary_frame
from bench.stats import ROW, TARGETS, finished

COSTS = [column for column in TARGETS if column.name.endswith("_to_target")]


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    frame = summary_frame(runs, results.columns, differences_of(results))
    told = runs if any(primary.keys_of(runs) != FIRST_METRIC) else runs.drop(columns=PRIMARY, errors="ignore")
    yield Data("runs", told)
    yield Data("summary", frame)
    yield Heading("Results")
    if finished(runs).empty:
        yield Text("No run ended well, so there is no figure to show.")
    if len(frame):
        costs = costs_of(results)[[*ROW, *(column.name for column in COSTS)]]
        yield board(frame.merge(costs, on=ROW, how="left"), results.columns, COSTS)
