"""`bench report`, `compare`, `merge` and `pack`: what is made of run records."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.api.errors import ConfigError, StoreError
from bench.cli.ending import stop_on_signals
from bench.cli.options import AllSources, Plugins, catalog_of
from bench.display.printing import BAD_INPUT, fail, note, say, table

if TYPE_CHECKING:
    from bench.report.render_html import Watched

EVERY_S = 10.0

Margin = Annotated[
    float | None,
    typer.Option(min=0.01, max=100, help="Points, or % of backprop's RMSE, say, that are equivalent; else 1."),
]
Select = Annotated[
    str | None, typer.Option(metavar="CONDITIONS", help="Which runs, as in 'method=mine,backprop dataset=mnist'.")
]


def report(
    results: Annotated[Path, typer.Argument(help="A results folder.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
    all_sources: AllSources = False,
    select: Select = None,
    margin: Margin = None,
    target: Annotated[
        float | None,
        typer.Option(help="Validation accuracy, %, or other metric, to be reached; else 95% of backprop's last."),
    ] = None,
    style: Annotated[
        str, typer.Option(help="Of figures: screen, or paper: as wide as its columns, in its type, as PDF, too.")
    ] = "screen",
    watch: Annotated[
        bool, typer.Option("--watch", help="Write anew while a sweep runs, until its plan is done or Ctrl-C.")
    ] = False,
    every: Annotated[
        float | None, typer.Option(min=1, max=3600, help="With --watch: seconds between two reports at least; else 10.")
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Write tables and figures over run records."""
    from bench.command import results_of, write_report
    from bench.record.selection import selection

    catalog, broken = catalog_of(plugin)
    asked: dict[str, Any] = {} if margin is None else {"margin": margin / 100}
    chosen = selection(select or "")
    if every is not None and not watch:
        raise ConfigError("--every is for --watch; give both or neither")
    told: set[str] = set()

    def write(watched: "Watched | None" = None) -> Path:
        measured = results_of(results, catalog, all_sources=all_sources, select=chosen, lenient=True, **asked)
        measured.target = None if target is None else measured.target_of(target)
        page = write_report(measured, out, style=style, watched=watched)
        if watched is None:
            say(f"report: {page}")
        found = set(measured.problems)
        for problem in [problem for problem in measured.problems if problem not in told]:
            fail(problem)
        told.clear()
        told.update(found)
        return page.with_name("index.html")

    if watch:
        from bench.report.watch import watch as keep_up

        keep_up(results, write, every_s=every or EVERY_S, stop=stop_on_signals(), tell=note)
    else:
        write()
    return BAD_INPUT if broken or told else 0


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A results folder: an older commit, the reference.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another: a newer commit, another machine.")],
    select: Select = None,
    margin: Margin = None,
    csv: Annotated[Path | None, typer.Option(help="A file for the unrounded numbers.")] = None,
    plugin: Plugins = None,
) -> int:
    """Set two results folders side by side, cell by cell, paired by seed; a corrupt record is named and left out."""
    from bench.command import results_of
    from bench.record.files import atomic_write
    from bench.record.results import MARGIN
    from bench.record.selection import selection
    from bench.report.numbers import csv as as_csv
    from bench.report.versus import ratios_of, versus_frame, versus_frames, versus_table

    catalog, broken = catalog_of(plugin)
    within = MARGIN if margin is None else margin / 100
    chosen = selection(select or "")
    sides = [results_of(side, catalog, select=chosen, margin=within, lenient=True) for side in (a, b)]
    for side in sides:
        if not side.rows:
            raise StoreError(next(iter(side.problems), f"{side.root} holds no runs to compare"))
    for primary, frame in versus_frames(*sides):
        drawn = versus_table(frame, ratios_of(sides[0]), primary)
        table(drawn.headers, drawn.rows)
    if csv is not None:
        atomic_write(csv, as_csv(versus_frame(*sides)))
    problems = [problem for side in sides for problem in side.problems]
    for problem in problems:
        fail(problem)
    return BAD_INPUT if broken or problems else 0


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders, or packs, of several machines.")],
    out: Annotated[Path, typer.Option(help="The folder that is to hold all of them.")],
    keep: Annotated[Path | None, typer.Option(help="Of two records that contradict, that of this folder.")] = None,
) -> None:
    """Join results folders from several machines; records that contradict each other are named and refused."""
    from bench.record.merge import merge as join

    found = join(sources, out, keep=keep)
    points = f" and {found.points} points of scaling" if found.points else ""
    say(f"merged: {found.runs} runs{points} in {out}")


def pack(
    results: Annotated[Path, typer.Argument(help="The results folder of one experiment.")],
    out: Annotated[Path, typer.Argument(help="Folder for records.zip and summary.csv.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the folder holds what the experiment lacks.")
    ] = False,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Leave out the weights that runs kept.")] = False,
) -> None:
    """Pack the records of an experiment into one file, beside a summary to be read."""
    from bench.record.pack import pack as write

    write(results, out, replace=replace, weights=not no_weights)
    say(f"packed: {out}")
