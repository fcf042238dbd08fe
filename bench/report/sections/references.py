"""BibTeX of all methods and data sets that were used, as these declare it, to be pasted."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Code, Heading, Text
from bench.report.text import markdown as escape


def section(results: Results) -> Iterator[Block]:
    if results.catalog is None:
        return
    shelves = results.catalog.methods, results.catalog.datasets
    used = (results.probed["method"].unique(), results.probed["dataset"].unique())
    entries: dict[str, None] = {}
    silent = []
    for shelf, names in zip(shelves, used, strict=True):
        for name in sorted(map(str, names)):
            known = name.partition(":")[0]
            found = shelf[known].citations() if known in shelf else []
            entries |= dict.fromkeys(found)
            if not found:
                silent.append(name)
    if entries or silent:
        yield Heading("References")
    if entries:
        yield Text("BibTeX of the methods and data sets above.")
        yield Code("BibTeX", "\n\n".join(entries))
    if silent:
        yield Text(f"Without a reference of their own here: {', '.join(map(escape, silent))}.")
