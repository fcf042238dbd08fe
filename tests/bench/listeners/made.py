"""What tests of listeners share: a run and what is told of it, and a listener that keeps what it hears."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.api.column import Value
from bench.api.listener import Listener, RunInfo
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, plan
from bench.listeners.fan_out import FanOut
from bench.record.folder import RunFolder
from bench.runner.events import Ended, EpochEnded, Event, Started

CURVE: list[dict[str, Value]] = [
    {"epoch": 1, "step": 10, "train_loss": 2.5, "val_acc": 0.25, "train_s": 0.5},
    {"epoch": 2, "step": 20, "train_loss": 1.5, "val_acc": None, "train_s": 1.0},
]
POINTS = [EpochEnded(row, 20) for row in CURVE]
WELL = {"status": "ok", "reason": None, "test_acc": 0.75, "stopped_by": "epochs"}
BADLY = {"status": "diverged", "reason": "the loss is nan", "train_loss": 9.0}
WHOLE = [Started(), *POINTS, Ended(WELL)]


def a_run(seed: int = 0) -> Run:
    asked = Experiment.model_validate({"methods": ["backprop"], "net": "mlp", "epochs": 2, "seeds": [seed]})
    catalog = Catalog()
    return plan(asked, catalog, device="cpu", datasets={"digits": load(catalog.dataset("digits"))})[0]


class Toy(Listener):
    """Keeps what it hears, in `heard`. fails: names of hooks that raise."""

    name = "toy"

    def __init__(self, argument: str = "", fails: Sequence[str] = ()) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.fails = fails

    def open(self) -> None:
        self._hear("open", None)

    def started(self, run: RunInfo) -> None:
        self._hear("started", run.run_id)

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        self._hear("point", row)

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._hear("ended", summary["status"])

    def failed(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._hear("failed", summary["status"])

    def close(self) -> None:
        self._hear("close", None)

    def _hear(self, hook: str, what: object) -> None:
        self.heard.append((hook, what))
        if hook in self.fails:
            raise RuntimeError(f"{hook} is broken")


def told(
    listeners: Sequence[Listener],
    events: Sequence[Event],
    root: Path,
    *,
    runs: Sequence[Run] = (),
    curve: Sequence[Mapping[str, Value]] = (),
) -> list[str]:
    """Tell listeners of events, of each run by turns; the warnings. curve: what the record of each run has."""
    warnings: list[str] = []
    runs = runs or [a_run()]
    for run in runs:
        folder = RunFolder(root, "exp", run.spec.run_id)
        folder.path.mkdir(parents=True)
        if curve:
            folder.write_curve(curve)
    with FanOut(listeners, warnings.append) as heard:
        hear = heard.beside(lambda run, event: None, root, "exp")
        for event in events:
            for run in runs:
                hear(run, event)
    return warnings
