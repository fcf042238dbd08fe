"""The whole road of one command: experiment, plan, runs, report."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import data, isolate, store, tune
from bench.config import Experiment
from bench.errors import ConfigError
from bench.executors.local import Listener, Options, run_all
from bench.plan import Run, check, plan
from bench.registry import Registry

TUNING = ".tuning"  # the trials of an experiment lie beside it, never among its runs


@dataclass(frozen=True)
class Outcome:
    """What came of an experiment: its runs, their summaries (None: not begun) and where it all lies."""

    runs: list[Run]
    summaries: list[dict[str, Any] | None]
    folder: Path

    @property
    def all_ok(self) -> bool:
        return all(s is not None and s["status"] == "ok" for s in self.summaries)


def prepare(
    experiment: Experiment, registry: Registry, *, data_dir: Path | None, download: bool
) -> tuple[list[Run], str]:
    """The runs and the device, with everything checked that can be checked before the first run.

    Raises: ConfigError, DataError, PluginError.
    """
    check(experiment, registry)
    isolate.warm()
    device = _device(experiment.device)
    if experiment.precision == "tf32" and device == "cpu":
        raise ConfigError("precision tf32 exists on CUDA devices alone; use float32 or bfloat16 on the CPU")
    data_ids = {}
    for name in experiment.datasets:
        loaded = data.load(name, data_dir=data_dir, download=download, val_fraction=experiment.val_fraction)
        data_ids[name] = loaded.fingerprint
    return plan(experiment, registry, device=device, data_ids=data_ids), device


def execute(
    experiment: Experiment,
    runs: list[Run],
    registry: Registry,
    options: Options,
    listening: Callable[[list[Run]], AbstractContextManager[Listener]],
    stop: threading.Event,
) -> Outcome:
    """Bring all runs to their end, after the search that the experiment may ask for.

    listening: opens the display for a list of runs. Raises: StoreError where results cannot be written.
    """
    folder = options.root / options.experiment

    def work(part: list[Run], where: Options) -> list[dict[str, Any] | None]:
        with listening(part) as listen:
            return run_all(part, where, listen, stop)

    if experiment.tune is not None:
        aside = replace(options, experiment=f"{options.experiment}{TUNING}")
        configs = {name: registry[name].load().Config for name in experiment.methods}
        searches = tune.search(runs, configs, experiment.tune, lambda trials: work(trials, aside))
        if searches is None:
            return Outcome(runs, [None] * len(runs), folder)
        tune.save(searches, aside.root / aside.experiment)
        runs = tune.tuned(runs, searches)
    return Outcome(runs, work(runs, options), folder)


def write_report(results: Path, out: Path | None = None) -> Path:
    """The report over everything below `results`, by default in reports/<name of the folder>. Returns report.md."""
    from bench import report

    runs, curves, environments = store.read(results)
    results = results.resolve()
    return report.write(
        runs,
        curves,
        out or Path("reports") / results.name,
        title=results.name,
        environments=environments,
        alignment=store.read_alignment(results, runs),
        ways=store.read_ways(results, runs),
        exhibits=store.read_exhibits(results, set(runs["run_id"])),
        searches=tune.load(results.with_name(f"{results.name}{TUNING}")),
    )


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(asked.partition(":")[2] or 0)
        if index >= count:
            raise ConfigError(f"--device {asked}: this machine has {count or 'no'} CUDA device(s); use --device cpu")
    return asked
