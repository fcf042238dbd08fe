"""Weights & Biases: a run for each run, grouped by results folder.

The project is PROJECT, else $WANDB_PROJECT. The package's own variables hold, such as WANDB_MODE=offline and WANDB_DIR.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from bench.api.column import Value
from bench.api.errors import ConfigError
from bench.api.listener import Listener, RunInfo, missing_package, scalars
from bench.catalog.register import register

PROJECT = "backprop-free-bench"


@register
class WandB(Listener):
    name = "wandb"
    argument: ClassVar[str] = "PROJECT"

    def __init__(self, argument: str = "") -> None:
        if find_spec("wandb") is None:
            raise missing_package("listener wandb", "wandb")
        import wandb

        self._wandb: Any = wandb
        sent = wandb.setup().settings.mode not in ("offline", "dryrun", "disabled")
        if sent and not wandb.login(prompt=False, verify=False):  # no question: nobody may be there to answer
            raise ConfigError("--log wandb: nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")
        self.project = argument or os.environ.get("WANDB_PROJECT") or PROJECT
        self._runs: dict[str, Any] = {}

    def started(self, run: RunInfo) -> None:
        self._runs[run.run_id] = self._wandb.init(
            project=self.project,
            group=run.experiment,
            name=run.label,
            config={**run.settings, "run_id": run.run_id},
            reinit="create_new",  # runs of one process side by side
            settings=self._wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        values = scalars(row)
        self._runs[run.run_id].log(values, step=int(values["step"]))

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._finish(run, summary, 0)

    def failed(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._finish(run, summary, 1)

    def _finish(self, run: RunInfo, summary: Mapping[str, Any], exit_code: int) -> None:
        of = self._runs.pop(run.run_id)
        words = {name: summary.get(name) for name in ("status", "reason")}
        of.summary.update({**words, **scalars(summary)})
        of.finish(exit_code=exit_code)
