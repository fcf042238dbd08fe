"""`bench report` and `bench pack`: what is made of run records."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.options import AllSources, Plugins, catalog_of
from bench.cli.printing import BAD_INPUT, fail, say


def report(
    results: Annotated[Path, typer.Argument(help="A results folder.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    all_sources: AllSources = False,
    margin: Annotated[
        float | None, typer.Option(min=0.01, max=100, help="Points within which accuracies are equivalent; else 1.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Validation accuracy to be reached, %; else 95% of backprop's last."),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Write tables and figures over run records."""
    from bench.experiment import results_of, write_report

    catalog, broken = catalog_of(plugin)
    asked: dict[str, Any] = {
        name: value / 100 for name, value in (("margin", margin), ("target", target)) if value is not None
    }
    measured = results_of(results, catalog, all_sources=all_sources, lenient=True, **asked)
    say(f"report: {write_report(measured, out)}")
    for problem in measured.problems:
        fail(problem)
    return BAD_INPUT if broken or measured.problems else 0


def pack(
    results: Annotated[Path, typer.Argument(help="The results folder of one experiment.")],
    out: Annotated[Path, typer.Argument(help="Folder for records.zip and summary.csv.")],
) -> None:
    """Pack the records of an experiment into one file, beside a summary to be read."""
    from bench.record.pack import pack as write

    write(results, out)
    say(f"packed: {out}")
