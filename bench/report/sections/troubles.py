"""What could not be read, and is therefore missing from all that follows."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Facts, Heading, Text
from bench.report.text import one_line


def section(results: Results) -> Iterator[Block]:
    _ = results.runs, results.curves, results.artifacts, results.searches  # read all, so that all trouble is known
    for name in results.tables:
        results.table(name)
    if results.problems:
        yield Heading("Trouble")
        yield Text("What could not be read, or does not belong here. It is left out; everything else is shown.")
        yield Facts([(str(k), one_line(problem)) for k, problem in enumerate(results.problems, 1)])
