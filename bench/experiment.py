"""The whole road of one command: experiment, plan, runs, report."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import data, isolate, store
from bench.config import Experiment
from bench.errors import ConfigError
from bench.executors.local import Listener, Options, run_all
from bench.plan import Run, check, plan
from bench.registry import Registry


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
    data_ids = {}
    for name in experiment.datasets:
        loaded = data.load(name, data_dir=data_dir, download=download, val_fraction=experiment.val_fraction)
        data_ids[name] = loaded.fingerprint
    return plan(experiment, registry, device=device, data_ids=data_ids), device


def execute(
    runs: list[Run], options: Options, listen: Listener, stop: threading.Event
) -> Outcome:
    """Bring all runs to their end. Raises: StoreError where results cannot be written."""
    summaries = run_all(runs, options, listen, stop)
    return Outcome(runs, summaries, options.root / options.experiment)


def write_report(results: Path, out: Path | None = None) -> Path:
    """The report over everything below `results`, by default in reports/<name of the folder>. Returns report.md."""
    from bench import report

    runs, curves, environments = store.read(results)
    name = results.resolve().name
    return report.write(runs, curves, out or Path("reports") / name, title=name, environments=environments)


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
