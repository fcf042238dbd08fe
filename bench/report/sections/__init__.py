"""The sections of a report, a file each, in their order. A section gives the blocks that it has, if it has any."""

from collections.abc import Callable, Iterator
from itertools import chain

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.sections import (
    accuracy,
    across,
    answer,
    artifacts,
    curves,
    dependency,
    differences,
    disturbed,
    environments,
    every_run,
    failures,
    further,
    how_to_read,
    ladder,
    memory,
    published,
    read_out,
    references,
    results,
    scaling,
    steps,
    targets,
    troubles,
    tuning,
    what_was_run,
)
from bench.report.sections import alignment as angles
from bench.report.text import markdown, one_line

Section = Callable[[Results], Iterator[Block]]


def isolated(section: Section) -> Section:
    """The section; where it fails over a lenient reading, a line in its place that says so."""

    def guarded(results: Results) -> Iterator[Block]:
        try:
            yield from section(results)
        except Exception as error:  # whatever a record made it do, the other sections are shown
            if not results.lenient:
                raise
            yield failed(results, f"section {section.__module__.rpartition('.')[2]}", error)

    return guarded


def failed(results: Results, what: str, error: Exception) -> Text:
    """Told in the report and to the user."""
    told = one_line(f"{what} could not be made: {type(error).__name__}: {error}", 200)
    results.left_out(f"{told}; leave out the record that causes it with --select")
    return Text(f"{markdown(told)}.")


def of_judges(results: Results) -> str:
    """As in `Accuracy and learning`, after the primary metrics of the runs."""
    words = ", ".join(primary.word for primary in results.primaries)
    return f"{words[:1].upper()}{words[1:]} and learning"


def titled(title: str | Callable[[Results], str], *sections: Section) -> Section:
    """Several sections under one heading, if any has something to show."""

    def section(results: Results) -> Iterator[Block]:
        shown = False
        for block in chain.from_iterable(isolated(of)(results) for of in sections):
            if not (shown or isinstance(block, Data)):
                shown = True
                yield Heading(title if isinstance(title, str) else title(results))
            yield block

    return section


SECTIONS: tuple[Section, ...] = (
    answer.section,
    what_was_run.section,
    troubles.section,
    results.section,
    disturbed.section,
    differences.section,
    across.section,
    targets.section,
    titled(of_judges, accuracy.section, ladder.section, curves.section),
    titled("What updates depend on", dependency.section, angles.section, read_out.section),
    memory.section,
    scaling.section,
    tuning.section,
    published.section,
    titled("What was learnt", steps.section, artifacts.section),
    further.section,
    failures.section,
    every_run.section,
    how_to_read.section,
    environments.section,
    references.section,
)

WITHOUT_RUNS: tuple[Section, ...] = (answer.section, troubles.section, scaling.section)
