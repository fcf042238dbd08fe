"""The whole road of one command: experiment, plan, runs, report."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data
from bench.api.errors import ConfigError, StoreError
from bench.catalog.catalog import Catalog
from bench.data.outline import Outlined, outline
from bench.executors import isolate
from bench.executors.executor import Executor, Hear, Options, device_here
from bench.executors.isolate import Summary
from bench.executors.local import Local
from bench.experiment import threads
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, check, plan
from bench.experiment.ranges import spaces
from bench.experiment.shard import Shard
from bench.listeners.fan_out import FanOut
from bench.record import locks, searches
from bench.record.folder import last_end
from bench.record.results import MARGIN, Results
from bench.record.schema import FIRST_METRIC
from bench.record.selection import Selection
from bench.record.standing import save_plan
from bench.runner import room
from bench.search import outcome, saved, search
from bench.search.search import Search

if TYPE_CHECKING:
    from bench.report.render_html import Watched

Whole = Sequence[Mapping[str, Any]]  # what is known ahead of each run of a command, trials of a search first
Begin = Callable[[list[Run]], Hear]  # a part of the whole begins: a round of trials, or the runs
Listening = Callable[[Whole], AbstractContextManager[Begin]]


@dataclass(frozen=True)
class Outcome:
    """What came of an experiment: its runs, their summaries (None: not begun) and where it all lies."""

    runs: list[Run]
    summaries: list[dict[str, Any] | None]
    folder: Path

    @property
    def has_begun(self) -> bool:
        """Whether there is a run to tell of: a request to stop may come before the first."""
        return any(summary is not None for summary in self.summaries)

    @property
    def all_ok(self) -> bool:
        return all(s is not None and s["status"] == "ok" for s in self.summaries)

    @property
    def has_unreadable(self) -> bool:
        """Whether a run was left alone because its closing record is corrupt."""
        return any(s is not None and s.get("unreadable") for s in self.summaries)


def prepare(
    experiment: Experiment,
    catalog: Catalog,
    *,
    data_dir: Path | None,
    download: bool,
    executor: Executor | None = None,
    shard: Shard | None = None,
) -> tuple[list[Run], str]:
    """The runs and the device, with everything checked that can be checked before the first run.

    shard: of the plan this part alone.

    Raises: ConfigError, DataError, PluginError.
    """
    check(experiment, catalog)
    if experiment.tune is not None and executor is not None and executor.detaches:
        raise ConfigError("detach: a search chooses by what its trials reached, and so waits; leave detach out")
    if shard is not None and experiment.tune is not None:
        raise ConfigError("--shard: a search is not for parts; search first (bench tune --save), then run with --tuned")
    if isinstance(executor, Local | None):
        threads.check(experiment.threads)
    isolate.warm()
    device = (executor or Local()).device(experiment.device)
    if experiment.precision == "tf32" and device == "cpu":
        raise ConfigError("precision tf32 exists on CUDA devices alone; use float32 or bfloat16 on the CPU")
    loaded = {
        name: data.load(
            catalog.dataset(name), data_dir=data_dir, download=download, val_fraction=experiment.val_fraction
        )
        for name in experiment.datasets
    }
    runs = plan(experiment, catalog, device=device, datasets=loaded)
    if isinstance(executor or Local(), Local):
        room.check(runs, loaded)
    runs = runs if shard is None else shard.of(runs)
    return (saved.applied(runs) if experiment.tuned else runs), device


def sketch(experiment: Experiment, catalog: Catalog, *, data_dir: Path | None) -> list[tuple[Run, Outlined]]:
    """The runs of the first seed, planned without reading what a data set's card says, each with its data's outline.

    Raises: ConfigError, DataError, PluginError.
    """
    check(experiment, catalog)
    outlines = {
        name: outline(catalog.dataset(name), data_dir=data_dir, val_fraction=experiment.val_fraction)
        for name in experiment.datasets
    }
    once = experiment.model_copy(update={"seeds": experiment.seeds[:1]})
    runs = plan(once, catalog, device=device_here(experiment.device), datasets=outlines)
    return [(run, outlines[run.spec.dataset]) for run in runs]


def probes(runs: list[Run]) -> list[Run]:
    """The same runs up to the first training step: what probes and trials find, and edge probes at the start."""
    return [replace(run, spec=run.spec.model_copy(update={"probe_only": True, "eval_draws": 0})) for run in runs]


def execute(
    experiment: Experiment,
    runs: list[Run],
    options: Options,
    listening: Listening,
    stop: threading.Event,
    executor: Executor | None = None,
    listeners: FanOut | None = None,
) -> Outcome:
    """Bring all runs to their end, after the search that the experiment may ask for, on this machine unless told.

    listening: opens the display, once for the whole. listeners: hear the same events.
    Raises: StoreError where results cannot be written.
    """
    executor = executor or Local()
    folder = options.root / options.experiment
    locks.prepare(options.root, options.experiment)
    options = _after_all(options)
    rows = _searches(experiment, runs, options)
    with listening([*_trials(rows, experiment), *map(_named, runs)]) as begin, listeners or FanOut() as heard:
        if experiment.tune is not None:
            if not _search(experiment, rows, options, begin, stop, executor, heard):
                return Outcome(runs, [None] * len(runs), folder)
            runs = search.tuned(runs, rows)
        save_plan(folder, map(_named, runs))
        hear = heard.beside(begin(runs), options.root, options.experiment)
        return Outcome(runs, executor.run_all(runs, options, hear, stop), folder)


def tune(
    experiment: Experiment,
    runs: list[Run],
    options: Options,
    listening: Listening,
    stop: threading.Event,
    executor: Executor | None = None,
    listeners: FanOut | None = None,
) -> list[Search] | None:
    """The search for the settings of these runs, written beside their folder; None where it was stopped.

    Raises: ConfigError for settings that cannot be searched, StoreError where results cannot be written.
    """
    locks.prepare(options.root, searches.beside(Path(options.experiment)).name)
    rows = _searches(experiment, runs, options)
    with listening(_trials(rows, experiment)) as begin, listeners or FanOut() as heard:
        return rows if _search(experiment, rows, options, begin, stop, executor or Local(), heard) else None


def _searches(experiment: Experiment, runs: list[Run], options: Options) -> list[Search]:
    if experiment.tune is None:
        return []
    spaces_of = spaces(experiment, {run.spec.method: run.method.load().Config for run in runs})
    return search.searches(runs, spaces_of, _at_chance(runs, options))


def _trials(rows: Sequence[Search], experiment: Experiment) -> list[dict[str, Any]]:
    """What is known ahead of the trials: all but their settings, and whether ranges will be widened."""
    tuning = experiment.tune
    if tuning is None:
        return []
    return [
        {
            **_named(row.run),
            "seed": tuning.seed,
            "epochs": search.trial_epochs(row.run, tuning),
            "run_id": f"{k}/{row.key}",
            "trial": True,
        }
        for row in rows
        for k in range(tuning.trials)
    ]


def _search(
    experiment: Experiment,
    rows: list[Search],
    options: Options,
    begin: Begin,
    stop: threading.Event,
    executor: Executor,
    heard: FanOut,
) -> bool:
    assert experiment.tune is not None
    aside = searches.beside(options.root / options.experiment)  # never among the runs that are reported
    there = _after_all(replace(options, experiment=aside.name))
    there = replace(there, terms=replace(there.terms, keep_weights=False))

    def work(trials: list[Run]) -> list[Summary | None]:
        save_plan(there.root / there.experiment, map(_named, trials))
        hear = heard.beside(begin(trials), there.root, there.experiment)
        ended = executor.run_all(trials, there, hear, stop)
        cut = [end["reason"] for end in ended if end is not None and end["status"] == "interrupted"]
        if cut and not stop.is_set():
            raise StoreError(f"a trial of the search was interrupted: {cut[0]}")
        unreadable = [end["reason"] for end in ended if end is not None and end.get("unreadable")]
        if unreadable:  # a search without a trial could find other settings
            raise StoreError(unreadable[0])
        return ended

    if not search.conduct(rows, experiment.tune, work):
        return False
    searches.save(outcome.found(rows, experiment.tune), aside)
    return True


def _after_all(options: Options) -> Options:
    """Every run that is to come ends after all that are there, whatever the machine's clock says."""
    return replace(options, terms=replace(options.terms, after=last_end(options.root / options.experiment)))


def _named(run: Run) -> dict[str, Any]:
    return {**run.spec.model_dump(mode="json"), "run_id": run.spec.run_id}


def _at_chance(runs: list[Run], options: Options) -> dict[str, float]:
    """The value of the primary metric on validation data up to which nothing was learnt, by data set."""
    found = {}
    for run in {run.spec.dataset: run for run in runs}.values():
        parts = run.load()
        loaded = data.load(parts.dataset, data_dir=options.data_dir, val_fraction=run.spec.val_fraction)
        metric = parts.metrics[0](loaded.output)
        if metric.key == FIRST_METRIC:
            found[run.spec.dataset] = search.at_chance(loaded.output.size, len(loaded.val.y))
        else:
            constant = parts.objective(loaded.output).constant(loaded.train.y)
            found[run.spec.dataset] = search.constant_value(metric, constant, loaded.val.y)
    return found


def results_of(
    folder: Path,
    catalog: Catalog,
    *,
    all_sources: bool = False,
    select: Selection | None = None,
    margin: float = MARGIN,
    target: float | None = None,
    lenient: bool = False,
) -> Results:
    """What was measured below a folder, with the columns of the instruments that are within reach."""
    terms: dict[str, Any] = dict(all_sources=all_sources, select=select, margin=margin, target=target, lenient=lenient)
    return Results(folder, columns=catalog.columns(), catalog=catalog, **terms)


def rates(folder: Path, catalog: Catalog) -> dict[tuple[str, str], float]:
    """FLOP/s that the runs below a folder reached in training, by method and net: their median."""
    runs = results_of(folder, catalog).runs.dropna(subset=["flops_per_s"])
    return {(str(m), str(n)): float(of["flops_per_s"].median()) for (m, n), of in runs.groupby(["method", "net"])}


def write_report(
    results: Results, out: Path | None = None, *, style: str = "screen", watched: "Watched | None" = None
) -> Path:
    """The report over results, by default in reports/<name of the folder>. Returns report.md."""
    from bench import report

    name = results.root.resolve().name
    return report.write(results, out or Path("reports") / name, title=name, style=style, watched=watched)
