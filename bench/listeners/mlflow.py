"""MLflow: a run for each run, in an MLflow experiment named as the results folder.

URI names a server or a store; else MLFLOW_TRACKING_URI does, else MLflow uses its default, mlflow.db in this folder.
"""

import logging
import time
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from bench.api.column import Value
from bench.api.listener import Listener, RunInfo, missing_package, scalars
from bench.catalog.register import register

KILLED = frozenset(("interrupted", "timeout"))
LONGEST = 5000  # characters of a parameter or tag, which any store takes


@register
class MLflow(Listener):
    name = "mlflow"
    argument: ClassVar[str] = "URI"

    def __init__(self, argument: str = "") -> None:
        if find_spec("mlflow") is None:
            raise missing_package("listener mlflow", "mlflow")
        with warnings.catch_warnings(action="ignore"):
            import mlflow.entities

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
        self._mlflow: Any = mlflow
        self._uri = argument or None
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}

    def open(self) -> None:
        with warnings.catch_warnings(action="ignore"):
            self._client: Any = self._mlflow.MlflowClient(self._uri)
            self._client.search_experiments(max_results=1)  # makes its tables, or says that no server answers

    def started(self, run: RunInfo) -> None:
        tags = {"bench.run_id": run.run_id}
        made = self._client.create_run(self._experiment(run.experiment), run_name=run.label, tags=tags)
        self._runs[run.run_id] = made.info.run_id
        param = self._mlflow.entities.Param
        settings = [param(name, str(value)[:LONGEST]) for name, value in run.settings.items() if value is not None]
        self._client.log_batch(made.info.run_id, params=settings)

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        values = scalars(row)
        self._log(run, values, int(values.pop("step")))

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._finish(run, summary, "FINISHED")

    def failed(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._finish(run, summary, "KILLED" if summary["status"] in KILLED else "FAILED")

    def _finish(self, run: RunInfo, summary: Mapping[str, Any], status: str) -> None:
        self._log(run, {f"summary.{name}": value for name, value in scalars(summary).items()}, 0)
        for name in ("status", "reason"):
            if summary.get(name):
                self._client.set_tag(self._runs[run.run_id], f"bench.{name}", str(summary[name])[:LONGEST])
        self._client.set_terminated(self._runs.pop(run.run_id), status)

    def _log(self, run: RunInfo, values: Mapping[str, float], step: int) -> None:
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        metrics = [metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._runs[run.run_id], metrics=metrics)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            self._experiments[name] = found.experiment_id if found else self._client.create_experiment(name)
        return self._experiments[name]
