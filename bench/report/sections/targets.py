"""What it costs to reach a target."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.derived import table
from bench.report.summary import costs_of
from bench.stats import TARGETS

NOTE = "The target is {target} (`bench report --target` sets another)."
OF_BACKPROP = "95% of the validation accuracy that backprop reaches on the same net at its last epoch"


def section(results: Results) -> Iterator[Block]:
    costs = costs_of(results)
    if costs.empty:
        return
    target = OF_BACKPROP if results.target is None else f"a validation accuracy of {100 * results.target:g}%"
    yield Data("targets", costs)
    yield Heading("Cost of a target")
    yield Text(NOTE.format(target=target))
    yield from table(costs, TARGETS)
