"""What several verbs share: their options, and the catalogue with what plugins bring."""

from pathlib import Path
from typing import Annotated

import typer

from bench.catalog.catalog import Catalog
from bench.cli.printing import fail

Methods = Annotated[str | None, typer.Option(help="Names, comma-separated.")]
Datasets = Annotated[str | None, typer.Option(help="Names, npz:PATH or imagefolder:PATH, comma-separated.")]
NetName = Annotated[str | None, typer.Option(help="One net for all methods, or auto.")]
SeedList = Annotated[str | None, typer.Option(help="A count (3) or a list (0,1,7).")]
BatchSize = Annotated[int | None, typer.Option(help="Examples per step.")]
ValFraction = Annotated[float | None, typer.Option(help="Part of the training data held out.")]
Precision = Annotated[str | None, typer.Option(help="float32, tf32 or bfloat16.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Assign = Annotated[list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="Repeatable.")]
Preset = Annotated[str | None, typer.Option(help="A shipped experiment; see `bench list presets`.")]
Config = Annotated[Path | None, typer.Option(help="An experiment in YAML.")]
ExperimentName = Annotated[str | None, typer.Option(help="Name of the results folder.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A file with methods, nets, data sets or instruments; repeatable."),
]
DataDir = Annotated[Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the data sets.", show_envvar=True)]
Download = Annotated[bool, typer.Option("--download", help="Fetch missing data sets.")]
ResultsFolder = Annotated[Path, typer.Option(help="Folder of the run records.")]
ReportsFolder = Annotated[Path, typer.Option(help="Folder of the reports.")]
Timeout = Annotated[float | None, typer.Option(min=0.001, help="Seconds after which a run is stopped.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time; measured times then disturb each other.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Run again what is finished, or keep it.")]
AllSources = Annotated[
    bool, typer.Option("--all-sources", help="Show also rows made by older code of a method or net.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result table only.")]


def catalog_of(plugins: list[Path] | None) -> tuple[Catalog, bool]:
    """All that is within reach, and whether anything is broken: it is named in one line and left out."""
    catalog = Catalog(plugins or ())
    for problem in catalog.problems:
        fail(problem)
    return catalog, bool(catalog.problems)
