"""What several verbs share: their options, and the catalogue with what plugins bring."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.api.errors import ConfigError, PluginError
from bench.catalog.catalog import Catalog
from bench.display.printing import fail

# kinds of options, each a group of its own in the help
what = partial(typer.Option, rich_help_panel="What to run")
length = partial(typer.Option, rich_help_panel="How long")
how = partial(typer.Option, rich_help_panel="How to run it")
where = partial(typer.Option, rich_help_panel="Where")

Assign = Annotated[list[str] | None, what("--set", metavar="NAME.KEY=VALUE", help="Repeatable.")]
Preset = Annotated[str | None, what(help="A shipped experiment; see `bench list presets`.")]
Config = Annotated[Path | None, what(help="An experiment in YAML.")]
Plugins = Annotated[
    list[Path] | None,
    what(
        "--plugin",
        metavar="FILE",
        help="A file with methods, nets, data sets or instruments; repeatable.",
    ),
]
DataDir = Annotated[
    Path | None,
    where(envvar="BENCH_DATA", help="Folder of the data sets.", show_envvar=True),
]
Download = Annotated[bool, where("--download", help="Fetch missing data sets.")]
ResultsFolder = Annotated[Path, where(help="Folder of the run records.")]
ReportsFolder = Annotated[Path, where(help="Folder of the reports.")]
Timeout = Annotated[float | None, how(min=0.001, max=1e7, help="Seconds after which a run is stopped.")]
Jobs = Annotated[int, how(min=1, max=1024, help="Runs at a time; measured times then disturb each other.")]
JobsIfTold = Annotated[
    int | None,
    how(
        min=1,
        max=1024,
        help="Runs at a time: here 1 unless told, elsewhere as many as there is room for.",
        show_default=False,
    ),
]
Fresh = Annotated[bool, how("--fresh/--resume", help="Run again what is finished, or keep it.")]
Retry = Annotated[str | None, how(help="Failures to run again: crashed, timeout, oom, diverged.")]
OnOOM = Annotated[
    str, how(metavar="fail|shrink", help="Out of memory: that is its end, or the same update from micro-batches.")
]
AllSources = Annotated[
    bool,
    how("--all-sources", help="Show also rows made by older code of a method or net."),
]
Quiet = Annotated[bool, how("--quiet", help="Print the result table only.")]


def names_in(flag: str, text: str | None) -> list[str]:
    """The names in a comma-separated option; none where it is left out. Raises: ConfigError for an empty name."""
    from bench.experiment.config import comma_list

    try:
        return [] if text is None else comma_list(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None


def catalog_of(plugins: list[Path] | None) -> tuple[Catalog, bool]:
    """All that is within reach, and whether an installed package is broken: it is named in one line and left out.

    Raises: PluginError where a plugin file is broken.
    """
    catalog = Catalog(plugins or ())
    if catalog.broken:
        raise PluginError(catalog.problems[-1])
    for problem in catalog.problems:
        fail(problem)
    return catalog, bool(catalog.problems)
