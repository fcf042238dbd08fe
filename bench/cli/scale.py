"""`bench scale`: training steps over worker processes, by blocks, by data and as a pipeline, against the ideal."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bench.api.errors import ConfigError
from bench.cli.ending import exit_code, stop_on_signals, stopped
from bench.cli.flags import Flags, takes
from bench.cli.options import (
    Assign,
    DataDir,
    Download,
    Fresh,
    Plugins,
    Quiet,
    ReportsFolder,
    ResultsFolder,
    catalog_of,
    how,
    length,
    names_in,
    what,
)
from bench.display.printing import fail, say, table
from bench.experiment.config import Experiment, resolve
from bench.record.scaling import WAYS, WayName

if TYPE_CHECKING:
    from bench.scale.model import Wire

PRESET = "scale"


@takes(Experiment, "net", "batch_size", "precision", "device", "experiment")
def scale(
    flags: Flags,
    method: Annotated[str | None, what(help="A rule whose blocks learn independently of each other.")] = None,
    against: Annotated[str | None, what(help="What is spread by data and as a pipeline.")] = None,
    dataset: Annotated[str | None, what(help="One data set.")] = None,
    assign: Assign = None,
    workers: Annotated[str, how(help="Numbers of workers, comma-separated; one is always among them.")] = "1,2,4",
    ways: Annotated[str, how(help="Of blocks, data and pipeline, comma-separated.")] = ",".join(WAYS),
    micro_batches: Annotated[int, how(min=1, max=10_000, help="Parts of a batch in a pipeline.")] = 2,
    latency: Annotated[float | None, how(min=0, max=1e9, help="Microseconds of a message, if simulated.")] = None,
    bandwidth: Annotated[float | None, how(min=1e-6, max=1e9, help="GB/s of a link, for what is simulated.")] = None,
    oversubscribe: Annotated[bool, how("--oversubscribe", help="Measure also more workers than cores.")] = False,
    steps: Annotated[int, length(min=1, max=1_000_000, help="Steps that are timed.")] = 20,
    warm_up: Annotated[int, length(min=1, max=1_000_000, help="Steps before them.")] = 3,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: ResultsFolder = Path("results"),
    reports: ReportsFolder = Path("reports"),
    download: Download = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> int:
    """Spread training over workers: by blocks that learn alone, and backprop by data and as a pipeline."""
    asked = resolve(PRESET, None, {**flags, "datasets": dataset}, assign or [])
    usual = asked.methods
    counts, chosen = _counts(workers), _ways(ways)
    methods = {"blocks": method or usual[0], "data": against or usual[1], "pipeline": against or usual[1]}
    asked = asked.model_copy(update={"methods": list(dict.fromkeys(methods.values()))})
    if len(asked.datasets) > 1 or asked.tune:
        raise ConfigError("--dataset: bench scale takes one data set")
    catalog, broken = catalog_of(plugin)

    from bench.command import prepare, results_of, write_report
    from bench.record import locks
    from bench.report import place, scaling_table
    from bench.scale.study import Scaling, check, conduct

    runs, device_name = prepare(asked, catalog, data_dir=data_dir, download=download)
    rows = [(way, run) for way in chosen for run in runs if run.spec.method == methods[way]]
    study = Scaling(
        rows,
        counts,
        steps=steps,
        warm_up=warm_up,
        n_micro=micro_batches,
        folder=results / asked.experiment,
        device=device_name.partition(":")[0],
        data_dir=data_dir,
        wire=_wire(latency, bandwidth),
        crowd=oversubscribe,
        fresh=fresh,
    )
    check(study)
    place.check(reports / asked.experiment)
    locks.prepare(results, asked.experiment)
    stop = stop_on_signals()
    points = conduct(study, (lambda line: None) if quiet else say, stop)
    if points is None:
        return stopped()
    measured = results_of(results / asked.experiment, catalog, lenient=True)
    report = write_report(measured, reports / asked.experiment)
    drawn = scaling_table(measured)
    table(drawn.headers, drawn.rows)
    say(f"report: {report}")
    for problem in measured.problems:
        fail(problem)
    return exit_code(all_ok=all(point.status == "ok" for point in points), broken=broken)


def _counts(text: str) -> list[int]:
    """Raises: ConfigError for what is no list of numbers."""
    parts = names_in("--workers", text)
    if not all(re.fullmatch("[0-9]{1,4}", part) and int(part) for part in parts):
        raise ConfigError(f"--workers {text}: write numbers of workers from 1 to 9999, as in 1,2,4")
    return sorted({int(part) for part in parts})


def _ways(text: str) -> list[WayName]:
    names = names_in("--ways", text)
    for name in names:
        if name not in WAYS:
            raise ConfigError(f"--ways {text}: '{name}' is none of {', '.join(WAYS)}")
    return [way for way in WAYS if way in names]


def _wire(latency_us: float | None, bandwidth_gb: float | None) -> "Wire | None":
    """Raises: ConfigError where one is stated without the other."""
    if latency_us is None and bandwidth_gb is None:
        return None
    if latency_us is None or bandwidth_gb is None:
        raise ConfigError("--latency and --bandwidth say together what a link carries; give both, or neither")
    from bench.scale.model import Wire

    return Wire(1e-6 * latency_us, 1e9 * bandwidth_gb)
