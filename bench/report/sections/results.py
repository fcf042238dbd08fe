"""The results: a table per data set, and the unrounded numbers behind it."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.summary import ordered, results_table, summary_frame
from bench.stats import finished


def section(results: Results) -> Iterator[Block]:
    runs = ordered(results.runs)
    yield Data("runs", runs)
    yield Data("summary", summary_frame(runs, results.columns, results.margin))
    yield Heading("Results")
    if finished(runs).empty:
        yield Text("No run ended well, so there is no figure to show.")
    for dataset, group in runs.groupby("dataset"):
        yield Heading(str(dataset), 3)
        yield results_table(results, group, where="page")
