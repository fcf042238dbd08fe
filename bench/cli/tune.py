"""`bench tune`: search settings, and keep what was found."""

from pathlib import Path
from typing import Annotated

import typer

from bench.api.errors import ConfigError
from bench.cli.ending import RUN_FAILED, stop_on_signals, stopped
from bench.cli.executor import LOCAL, ExecutorName, executor_of
from bench.cli.flags import Flags, takes
from bench.cli.options import (
    Assign,
    Config,
    DataDir,
    Download,
    Fresh,
    JobsIfTold,
    OnOOM,
    Plugins,
    Preset,
    Quiet,
    ResultsFolder,
    Retry,
    Timeout,
    catalog_of,
    names_in,
)
from bench.display.printing import IN_REPORT, fail, say, table
from bench.experiment.config import Experiment, Tuning, resolve
from bench.experiment.identity import Compute

LEAST = ("range", "near", "search, s", "epochs", "trials")  # of what the terminal shows
OF_TRIALS = [name for name in Compute.model_fields if name != "instruments"]  # a trial is read by its validation alone


@takes(Experiment, "methods", "datasets", "net", *OF_TRIALS, "device", "log", "experiment")
@takes(Tuning, into="search")
def tune(
    ctx: typer.Context,
    flags: Flags,
    search: Flags,
    assign: Assign = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: ResultsFolder = Path("results"),
    timeout: Timeout = None,
    jobs: JobsIfTold = None,
    executor: ExecutorName = LOCAL,
    download: Download = False,
    fresh: Fresh = False,
    retry: Retry = None,
    on_oom: OnOOM = "fail",
    save: Annotated[
        bool, typer.Option("--save", help="Keep what was solved, in the folder tuned or $BENCH_TUNED, for --tuned.")
    ] = False,
    save_beside: Annotated[
        bool, typer.Option("--save-beside", help="Keep it beside each method instead, to ship with it.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Search settings on validation data, every method with the same number of trials."""
    asked = resolve(preset, config, {**flags, "tune": search}, assign or [])
    catalog, broken = catalog_of(plugin)
    if broken:
        raise ConfigError("a search is for all methods alike; mend the plugin or leave it out")

    from bench import command as road
    from bench.display.progress import listening
    from bench.executors.attempt import Terms
    from bench.executors.executor import Options
    from bench.listeners import fan_out
    from bench.record import searches
    from bench.report.sections.tuning import table_of
    from bench.search import saved

    terms = Terms.asked(timeout, fresh=fresh, retry=names_in("--retry", retry), on_oom=on_oom)
    by = executor_of(catalog, executor, ctx)
    listeners = fan_out.FanOut(fan_out.make(catalog, asked.log), fail)
    runs, device_name = road.prepare(asked, catalog, data_dir=data_dir, download=download, executor=by)
    entries = {run.method.name: run.method for run in runs}.values()
    files = saved.files_for(entries, ship=save_beside) if save or save_beside else None  # while nothing has begun
    options = Options(results, asked.experiment, device_name, jobs, data_dir, download, terms)
    rows = road.tune(asked, runs, options, listening(quiet=quiet, jobs=jobs), stop_on_signals(), by, listeners)
    if rows is None:
        return stopped()
    folder = searches.beside(results / asked.experiment)
    found = searches.load(folder)
    shown = table_of(found)
    table(shown.headers, shown.rows, least=LEAST, elsewhere=IN_REPORT)
    say(f"trials: {folder}")
    for line in saved.save(found, files) if files else ():
        say(line)
    return RUN_FAILED if any(row.verdict == "failed" for row in found) else 0
