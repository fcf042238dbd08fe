"""The differences to backprop, the tests behind each conclusion, and how many seeds a clearer one would take."""

from collections.abc import Iterator

from bench.record.primary import apart
from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.derived import table
from bench.report.summary import differences_of, ordered, rows_among
from bench.stats import tests_of

NOTE = (
    "Paired by seed. Two rows are held to be equivalent where tests show their difference to lie within a margin of "
    "{margin} (`bench report --margin` sets another). Both tests are corrected for the number of rows of "
    "their data set, and a p value of at most 0.05 is taken as shown. Differences without any spread have no test, "
    "unless all are 0."
)


def section(results: Results) -> Iterator[Block]:
    differences = differences_of(results)
    yield Data("paired", differences)
    tested = differences[differences["n_pairs"] > 1]
    if tested.empty:
        return
    yield Heading("Differences to backprop")
    for primary, runs in apart(ordered(results.runs), results.primaries):
        rows = rows_among(tested, runs)
        if len(rows):
            yield Text(NOTE.format(margin=primary.size_words(results.margin, "backprop's")))
            yield from table(rows, tests_of(primary))
