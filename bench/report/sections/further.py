"""The tables that runs brought along, as files: whatever an instrument writes between epochs can be read on."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Data
from bench.report.sections.steps import TABLE as DRAWN_BY_STEPS


def section(results: Results) -> Iterator[Block]:
    for name in results.tables:
        if name != DRAWN_BY_STEPS:
            yield Data(name, results.table(name))
