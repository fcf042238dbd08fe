"""What several verbs share: their options, and the catalogue with what plugins bring."""

from pathlib import Path
from typing import Annotated

import typer

from bench.catalog.catalog import Catalog
from bench.cli.printing import fail

Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A file with methods, nets, data sets or instruments; repeatable."),
]
DataDir = Annotated[Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the data sets.", show_envvar=True)]
AllSources = Annotated[
    bool, typer.Option("--all-sources", help="Show also rows made by older code of a method or net.")
]


def catalog_of(plugins: list[Path] | None) -> tuple[Catalog, bool]:
    """All that is within reach, and whether anything is broken: it is named in one line and left out."""
    catalog = Catalog(plugins or ())
    for problem in catalog.problems:
        fail(problem)
    return catalog, bool(catalog.problems)
