"""`bench run`: train and measure, then report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.api.errors import ConfigError
from bench.cli import dry_run as dry
from bench.cli.ending import exit_code, stop_on_signals, stopped
from bench.cli.executor import LOCAL, ExecutorName, executor_of
from bench.cli.flags import Flags, takes
from bench.cli.options import (
    AllSources,
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
    ReportsFolder,
    ResultsFolder,
    Retry,
    Timeout,
    catalog_of,
    how,
    names_in,
)
from bench.display.printing import BAD_INPUT, IN_REPORT, fail, note, say, table
from bench.experiment.config import Experiment, resolve

if TYPE_CHECKING:
    from bench.catalog.catalog import Catalog

LEAST = ("step_ms_p50", "cpu_peak_rss_bytes", "gpu_peak_alloc_bytes")  # of what the terminal shows


@takes(Experiment)
def run(
    ctx: typer.Context,
    flags: Flags,
    assign: Assign = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: ResultsFolder = Path("results"),
    reports: ReportsFolder = Path("reports"),
    timeout: Timeout = None,
    jobs: JobsIfTold = None,
    executor: ExecutorName = LOCAL,
    shard: Annotated[
        str | None, how(metavar="I/N", help="The I-th of N parts of the plan; bench merge joins the folders.")
    ] = None,
    download: Download = False,
    fresh: Fresh = False,
    retry: Retry = None,
    on_oom: OnOOM = "fail",
    all_sources: AllSources = False,
    dry_run: Annotated[bool, how("--dry-run", help="List the runs and how long they take; run none.")] = False,
    quiet: Quiet = False,
) -> int:
    """Train and measure methods side by side, then write the report."""
    from bench.experiment.shard import Shard

    part_of_plan = None if shard is None else Shard.parse(shard)
    asked = resolve(preset, config, flags, assign or [])
    catalog, broken = catalog_of(plugin)
    if broken:
        asked = _without_broken(asked, catalog)

    from bench.command import execute, prepare, results_of, write_report
    from bench.display.progress import listening
    from bench.executors.attempt import Terms
    from bench.executors.executor import Options
    from bench.listeners import fan_out
    from bench.report import place, reasons, terminal_table
    from bench.search.saved import told

    terms = Terms.asked(
        timeout, fresh=fresh, retry=names_in("--retry", retry), on_oom=on_oom, keep_weights=asked.keep_weights
    )
    by = executor_of(catalog, executor, ctx)
    listeners = fan_out.FanOut(fan_out.make(catalog, asked.log), fail)
    if not dry_run:
        place.check(reports / asked.experiment)  # while nothing has begun
    runs, device_name = prepare(asked, catalog, data_dir=data_dir, download=download, executor=by, shard=part_of_plan)
    for line in told(runs) if asked.tuned else ():
        say(line)
    options = Options(results, asked.experiment, device_name, jobs, data_dir, download, terms)
    if dry_run:
        dry.show(asked, runs, options)
        return BAD_INPUT if broken else 0
    stop = stop_on_signals()
    outcome = execute(asked, runs, options, listening(quiet=quiet, jobs=jobs), stop, by, listeners)
    if by.detaches:
        return _handed_over(outcome.summaries, results / asked.experiment)
    if not outcome.has_begun:
        return stopped()
    measured = results_of(outcome.folder, catalog, all_sources=all_sources, lenient=True)
    report = write_report(measured, reports / asked.experiment)
    titles = {column.name: column.title for column in measured.columns}
    least = [titles[name] for name in LEAST if name in titles]
    table(*terminal_table(measured), least=least, elsewhere=IN_REPORT)
    for line in (*reasons(measured), *measured.unshown):
        note(line)
    say(f"report: {report}")
    for problem in measured.problems:
        fail(problem)
    if stop.is_set():
        return stopped()
    return exit_code(all_ok=outcome.all_ok, broken=broken or outcome.has_unreadable)


def _handed_over(summaries: list[dict[str, Any] | None], folder: Path) -> int:
    """Say where runs that have not ended can be looked at; the exit code."""
    left = sum(summary is None for summary in summaries)
    say(f"submitted: {left} runs; ended before: {len(summaries) - left}")
    say(f"bench status {folder} --runs: where they are; the same command without --detach waits and reports")
    return 0


def _without_broken(asked: Experiment, catalog: "Catalog") -> Experiment:
    """The experiment without the names that only a broken plugin could have given."""
    there = [name for name in asked.methods if name in catalog.methods]
    if not there:
        raise ConfigError("none of the methods can be loaded")
    return asked.model_copy(update={"methods": there})
