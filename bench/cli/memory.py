"""`bench memory`: how memory grows with batch and depth, by one step of each run, without training."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.ending import exit_code, stop_on_signals, stopped
from bench.cli.flags import Flags, takes
from bench.cli.options import (
    AllSources,
    DataDir,
    Download,
    Fresh,
    Jobs,
    Plugins,
    Quiet,
    ReportsFolder,
    ResultsFolder,
    Timeout,
    catalog_of,
    names_in,
)
from bench.display.printing import IN_REPORT, say, table
from bench.experiment.config import Experiment, resolve

PRESET = "memory"


@takes(Experiment, "methods", "datasets", "net", "precision", "device", "experiment")
def memory(
    flags: Flags,
    batch_size: Annotated[str, typer.Option(help="Examples per step, comma-separated.")] = "32,128,512",
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.KEY=VALUE,...", help="Values to sweep span a grid; repeatable."),
    ] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: ResultsFolder = Path("results"),
    reports: ReportsFolder = Path("reports"),
    timeout: Timeout = None,
    jobs: Jobs = 1,
    download: Download = False,
    fresh: Fresh = False,
    all_sources: AllSources = False,
    quiet: Quiet = False,
) -> int:
    """Measure the memory of a training step, against batch size and any setting, without training."""
    sizes = [_typed(size) for size in names_in("--batch-size", batch_size)]
    asked = [resolve(PRESET, None, {**flags, "batch_size": size}, assign or []) for size in sizes]
    catalog, broken = catalog_of(plugin)

    from bench.command import execute, prepare, probes, results_of, write_report
    from bench.display.progress import listening
    from bench.executors.attempt import Terms
    from bench.executors.executor import Options
    from bench.report import memory_table, place

    planned = [prepare(point, catalog, data_dir=data_dir, download=download) for point in asked]
    runs = probes([run for part, _ in planned for run in part])
    options = Options(
        results, asked[0].experiment, planned[0][1], jobs, data_dir, download, Terms(timeout, fresh, frozenset())
    )
    place.check(reports / asked[0].experiment)
    stop = stop_on_signals()
    outcome = execute(asked[0], runs, options, listening(quiet=quiet, jobs=jobs), stop)
    if not outcome.has_begun:
        return stopped()
    measured = results_of(outcome.folder, catalog, all_sources=all_sources)
    report = write_report(measured, reports / asked[0].experiment)
    points = memory_table(measured)
    table(points.headers, points.rows, elsewhere=IN_REPORT)
    say(f"report: {report}")
    if stop.is_set():
        return stopped()
    return exit_code(all_ok=outcome.all_ok, broken=broken)


def _typed(size: str) -> int | str:
    """A whole number, or the text, which the experiment refuses."""
    return int(size) if re.fullmatch("[0-9]{1,18}", size) else size
