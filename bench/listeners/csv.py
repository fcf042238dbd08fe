"""CSV: one table of all runs that grows as they train, FOLDER/EXPERIMENT.csv, with a line for each number.

Columns: run_id, method, net, dataset, seed, event, step, name, value. `event` is `start`, `point` for the learning
curve and `end` for the summary; only points have a step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bench.api.column import Value
from bench.api.listener import Listener, RunInfo, scalars
from bench.catalog.register import register
from bench.record.files import csv_bytes, local

FOLDER = Path("logs", "csv")
FIELDS = "run_id method net dataset seed event step name value".split()


@register
class Csv(Listener):
    name = "csv"
    argument: ClassVar[str] = "FOLDER"

    def __init__(self, argument: str = "") -> None:
        self.folder = local(argument, "--log csv:") if argument else FOLDER

    def started(self, run: RunInfo) -> None:
        self._append(run, "start", None, {"label": run.label})

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        step = row["step"]
        self._append(run, "point", step, {name: v for name, v in scalars(row).items() if name != "step"})

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        self._append(run, "end", None, {"status": summary["status"], **scalars(summary)})

    def _append(self, run: RunInfo, event: str, step: Value, values: Mapping[str, Value]) -> None:
        of_run = {name: run.spec[name] for name in ("method", "net", "dataset", "seed")}
        known = {"run_id": run.run_id, **of_run, "event": event, "step": step}
        rows = [{**known, "name": name, "value": value} for name, value in values.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{run.experiment}.csv").open("ab") as file:
            head, _, lines = csv_bytes(FIELDS, rows).partition(b"\n")
            file.write(lines if file.tell() else head + b"\n" + lines)
