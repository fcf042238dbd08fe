"""What executors share: which runs of a command are finished, what each job is told, and how lost runs end.

How attempts are launched and waited for differs (threads here, tasks of Ray, an array of Slurm) and stays with each.
"""

import os
import threading
from typing import Any

from bench.api.status import Status
from bench.executors.attempt import is_due, named
from bench.executors.executor import Hear, Options
from bench.executors.isolate import Job, Summary
from bench.experiment.plan import Run
from bench.record.clock import moment
from bench.record.folder import RunFolder
from bench.runner.events import Ended, Kept


class Sweep:
    """The runs of one command on their way to their ends. Runs are named by their place in the plan."""

    def __init__(self, runs: list[Run], options: Options, listen: Hear, stop: threading.Event) -> None:
        self.runs, self.options, self.listen, self.stop = runs, options, listen, stop
        self.summaries: dict[int, Summary] = {}

    @property
    def outcome(self) -> list[Summary | None]:
        """The summaries in the plan's order; None for a run that has not begun."""
        return [self.summaries.get(index) for index in range(len(self.runs))]

    def _folder(self, index: int) -> RunFolder:
        return RunFolder(self.options.root, self.options.experiment, self.runs[index].spec.run_id)

    def _job(self, index: int, **other: Any) -> Job:
        """What an attempt is told. other: fields that differ from the options."""
        of = self.options
        given = dict(root=of.root, experiment=of.experiment, device=of.device, data_dir=of.data_dir)
        return Job(self.runs[index], **{**given, "download": of.download, **other})

    def _is_kept(self, index: int, *, afresh: bool) -> bool:
        """Whether the run has a record that stands; listeners hear of it. afresh: what there is does not count."""
        before = None if afresh else self._folder(index).summary()
        if before is None or is_due(before, self.options.terms):
            return False
        self._is_done(index, before, Kept)
        return True

    def _is_done(self, index: int, summary: Summary, event: type[Kept] | type[Ended]) -> None:
        self.summaries[index] = summary
        self.listen(self.runs[index], event(summary))

    def _is_free(self, index: int) -> bool:
        """Whether no process works on the run."""
        fd = self._folder(index).lock()
        if fd is not None:
            os.close(fd)
        return fd is not None

    def _lost(self, index: int, status: Status, reason: str, *, held: int | None = None) -> Summary:
        """The end of a run that nothing more will be heard of; also in its record, where nobody works on it.

        held: the lock of the run's folder, where this process has it.
        """
        summary: Summary = {"status": status, "reason": reason, "finished_at": moment(self.options.terms.after)}
        folder = self._folder(index)
        if folder.has_spec() and (fd := folder.lock() if held is None else held) is not None:
            folder.finish({**summary, **named(self.runs[index].spec)})
            if held is None:
                os.close(fd)
        return summary
