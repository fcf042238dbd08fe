"""The sections of a report, a file each, in their order. A section gives the blocks that it has, if it has any."""

from collections.abc import Callable, Iterator

from bench.record.results import Results
from bench.report.blocks import Block
from bench.report.sections import (
    accuracy,
    across,
    artifacts,
    curves,
    dependency,
    differences,
    disturbed,
    environments,
    failures,
    further,
    how_to_read,
    ladder,
    memory,
    published,
    read_out,
    results,
    steps,
    targets,
    trade_offs,
    tuning,
    what_was_run,
)
from bench.report.sections import alignment as angles

Section = Callable[[Results], Iterator[Block]]

SECTIONS: tuple[Section, ...] = (
    what_was_run.section,
    results.section,
    disturbed.section,
    failures.section,
    differences.section,
    across.section,
    targets.section,
    tuning.section,
    published.section,
    accuracy.section,
    ladder.section,
    curves.section,
    trade_offs.section,
    memory.section,
    read_out.section,
    angles.section,
    dependency.section,
    steps.section,
    artifacts.section,
    further.section,
    how_to_read.section,
    environments.section,
)
