"""`bench audit`: is it still backprop? Each method on small nets, set up and looked at, never trained."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.ending import exit_code, stop_on_signals, stopped
from bench.cli.flags import Flags, takes
from bench.cli.options import (
    Assign,
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
)
from bench.display.printing import IN_REPORT, say, table
from bench.experiment.config import Experiment, resolve

if TYPE_CHECKING:
    from bench.catalog.catalog import Catalog
    from bench.record.results import Results
    from bench.report.blocks import Table


AUDITED = (
    "updates_wait_for",
    "reverse_mode",
    "weight_transport",
    "forward_passes",
    "inference_passes",
    "retained_bytes",
)


@takes(Experiment, "methods", "datasets", "net", "device", "experiment")
def audit(
    flags: Flags,
    assign: Assign = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: ResultsFolder = Path("results"),
    reports: ReportsFolder = Path("reports"),
    timeout: Timeout = None,
    jobs: Jobs = 2,
    download: Download = False,
    fresh: Fresh = False,
    matrix: Annotated[bool, typer.Option("--matrix", help="Print update-dependency matrices, too.")] = False,
    quiet: Quiet = False,
) -> int:
    """Measure what each method waits for, how far gradients travel, whether weights are transported, and what it keeps.

    Without --methods: all. Nothing is timed or trained to the end, so two runs at a time do no harm.
    """
    catalog, broken = catalog_of(plugin)
    asked = resolve("audit", None, {"methods": list(catalog.methods), **flags}, assign or [])
    asked = _on_small_nets(asked, catalog)

    from bench.command import execute, prepare, probes, results_of, write_report
    from bench.display.progress import listening
    from bench.executors.attempt import Terms
    from bench.executors.executor import Options
    from bench.report import place
    from bench.report.summary import board_of, by_dataset

    runs, device_name = prepare(asked, catalog, data_dir=data_dir, download=download)
    options = Options(results, asked.experiment, device_name, jobs, data_dir, download, Terms(timeout, fresh))
    place.check(reports / asked.experiment)
    stop = stop_on_signals()
    outcome = execute(asked, probes(runs), options, listening(quiet=quiet, jobs=jobs), stop)
    if stop.is_set():
        return stopped()
    found = results_of(outcome.folder, catalog)
    for _, of_dataset in by_dataset(board_of(found)):
        table(*_answers(of_dataset, catalog), elsewhere=IN_REPORT)
    if matrix:
        for line in _matrices(found):
            say(line)
    say(f"report: {write_report(found, reports / asked.experiment)}")
    return exit_code(all_ok=outcome.all_ok, broken=broken)


def _on_small_nets(asked: Experiment, catalog: "Catalog") -> Experiment:
    """Every net at the size at which checks are quick, unless the experiment says otherwise."""
    small = {name: {**entry.load().small, **asked.settings.get(name, {})} for name, entry in catalog.nets.items()}
    return asked.model_copy(update={"settings": {**asked.settings, **small}})


def _answers(found: "Table", catalog: "Catalog") -> tuple[list[str], list[list[str]]]:
    """What names the rows, and what of them was audited; more stands in the report."""
    titles = {column.name: column.title for column in catalog.columns()}
    wanted = ["method", "variant", "net", "runs ok", *(titles[name] for name in AUDITED)]
    places = [found.headers.index(title) for title in wanted if title in found.headers]
    return [found.headers[k] for k in places], [[row[k] for k in places] for row in found.rows]


def _matrices(results: "Results") -> Iterator[str]:
    """Rows: blocks that learn; columns: blocks that were changed. A dot: no dependence; a dash: at rest."""
    from bench.report.sections.dependency import matrices

    for names, matrix in matrices(results).items():
        yield "\n" + ", ".join(name for name in names if name)
        yield from ("  " + " ".join(f"{_entry(value):>5}" for value in row) for row in matrix.tolist())


def _entry(change: float) -> str:
    return "-" if math.isnan(change) else f"{change:.2g}" if change else "."
