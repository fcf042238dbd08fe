"""How to read the tables and figures: each shown column in the words of the instrument that declares it."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Facts, Heading
from bench.report.summary import RUNS_OK, shown_columns
from bench.report.text import markdown as escape
from bench.stats import CONCLUSION

RULES = (
    (
        RUNS_OK,
        "counts the runs that ended well among all that were attempted. Every mean is over those only; the others "
        "are listed under *Failed runs*. A row with failures describes the survivors: read it with care",
    ),
    (
        "±",
        "is the half-width of the 95% Student-t interval over seeds; one seed has none and is marked (n=1). An "
        "interval of a difference that holds 0 shows no difference",
    ),
)
PROTOCOLS = (
    "protocol",
    "is *matched* where every method had the same budget; under *convergence* a run ended once validation {word} had "
    "found no new best for its patience, and the best epoch was tested. Differences compare within one protocol",
)
FILES = (
    "files",
    "unrounded numbers are in `tables/`: `summary.csv`, `paired.csv`, `runs.csv`, `failures.csv`; every figure is in "
    "`figures/` as PNG and SVG, with a colour per family and a marker per method; `index.html` is this report to be "
    "sorted and hovered. A line of a learning curve ends where the first of its seeds stopped",
)


def section(results: Results) -> Iterator[Block]:
    yield Heading("How to read this")
    runs = results.runs
    measured = set(runs.columns[runs.notna().any()])
    judged = {f"{primary.test}_diff" for primary in results.primaries if primary.test in measured}
    compared = judged | {CONCLUSION.name} if judged else set()
    present = [c for c in shown_columns(results) if c.name in measured | compared]
    word = " or ".join(primary.word for primary in results.primaries)
    name, text = PROTOCOLS
    rules = [*RULES, *([(name, text.format(word=word))] if (runs["protocol"] == "convergence").any() else [])]
    yield Facts([*rules, *((column.title, escape(column.what)) for column in present), FILES], strong=True)
