"""What it costs to reach a target."""

from collections.abc import Iterator

from bench.record.primary import Primary, apart
from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.derived import table
from bench.report.summary import costs_of, ordered, rows_among
from bench.stats import targets_of

NOTE = "The target is {target} (`bench report --target` sets another)."
OF_BACKPROP = "95% of the validation {word} that backprop reaches on the same net at its last epoch"
ABOVE_BACKPROP = "5% above the validation {word} that backprop reaches on the same net at its last epoch"


def section(results: Results) -> Iterator[Block]:
    costs = costs_of(results)
    if costs.empty:
        return
    yield Data("targets", costs)
    yield Heading("Cost of a target")
    told = apart(ordered(results.runs), results.primaries)
    for primary, rows in [(primary, rows_among(costs, of)) for primary, of in told]:
        if len(rows):
            yield Text(NOTE.format(target=_target(results.target, primary)))
            yield from table(rows, targets_of(primary))


def _target(asked: float | None, primary: Primary) -> str:
    if asked is not None:
        unit = primary.unit if primary.unit in ("", "%") else f" {primary.unit}"
        return f"a validation {primary.word} of {primary.scale * asked:g}{unit}"
    return (OF_BACKPROP if primary.higher else ABOVE_BACKPROP).format(word=primary.word)
