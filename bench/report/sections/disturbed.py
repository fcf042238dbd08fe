"""Rows whose times were measured while others were at work on the same machine."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Facts, Heading, Text
from bench.report.summary import ordered
from bench.report.text import markdown as escape
from bench.stats import ROW, disturbed, finished


def section(results: Results) -> Iterator[Block]:
    ok = finished(ordered(results.runs))
    lines = []
    for row, group in ok.groupby(ROW, sort=False):
        touched = disturbed(group)
        if len(touched):
            by = "; ".join(dict.fromkeys("; ".join(touched["contamination"]).split("; ")))
            load = touched["other_load"].mean()
            what = f"{len(touched)} of {len(group)} runs: {by}; others kept {load:.1f} cores busy"
            lines.append((", ".join(escape(part) for part in row if part), escape(what)))
    if lines:
        yield Heading("Disturbed times")
        yield Text(
            "While these rows trained, others were at work on the same cores or GPU. Accuracies, memory and counts "
            "stand; seconds, rates and joules are to be measured again on a quiet machine, one run at a time."
        )
        yield Facts(lines)
