"""The results: a table per data set, and the unrounded numbers behind it."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.summary import ordered, results_table, summary_frame
from bench.stats import finished


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    frame = summary_frame(runs, results.columns, results.margin)
    yield Data("runs", runs)
    yield Data("summary", frame)
    yield Heading("Results")
    if finished(runs).empty:
        yield Text("No run ended well, so there is no figure to show.")
    for dataset, rows in frame.groupby("dataset"):
        yield Heading(str(dataset), 3)
        yield results_table(rows, results.columns, where="page")
