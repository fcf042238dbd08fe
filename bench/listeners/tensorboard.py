"""TensorBoard: event files in FOLDER/EXPERIMENT/RUN, for `tensorboard --logdir FOLDER`.

Learning curves stand against training steps. The settings and the summary of a run make a line of the HPARAMS page.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from bench.api.column import Value
from bench.api.listener import Listener, RunInfo, missing_package, scalars
from bench.catalog.register import register
from bench.record.files import local

FOLDER = Path("logs", "tensorboard")


@register
class TensorBoard(Listener):
    name = "tensorboard"
    argument: ClassVar[str] = "FOLDER"

    def __init__(self, argument: str = "") -> None:
        if find_spec("tensorboard") is None:
            raise missing_package("listener tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.folder = local(argument, "--log tensorboard:") if argument else FOLDER
        self._writer_of, self._writers = SummaryWriter, dict[str, SummaryWriter]()

    def started(self, run: RunInfo) -> None:
        folder = self.folder / run.experiment / run.file_name
        # purge_step: what an earlier attempt left in this folder is no longer shown
        self._writers[run.run_id] = self._writer_of(str(folder), purge_step=0)

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        writer, values = self._writers[run.run_id], scalars(row)
        step = int(values.pop("step"))
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        writer = self._writers.pop(run.run_id)
        settings = {**run.settings, "status": summary["status"]}
        shown = {name: value for name, value in settings.items() if value is not None}
        found = {f"summary/{name}": value for name, value in scalars(summary).items()}
        writer.add_hparams(shown, found, run_name=".")
        if summary.get("reason"):
            writer.add_text("reason", str(summary["reason"]))
        writer.close()
