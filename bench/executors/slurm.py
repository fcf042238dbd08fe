"""Jobs of a Slurm cluster, by submitit: an array, a run each, in a results folder that all nodes see.

A job that is preempted, or comes to its time limit, lets its run save, and is queued again; the run continues from its
checkpoint. What came of a run is read from its record, never from what a job has pickled.
"""

import contextlib
import shutil
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.api.errors import ConfigError
from bench.api.status import Status
from bench.catalog.register import register
from bench.executors.attempt import BUSY_POLL_S, Terms, attempt
from bench.executors.executor import Executor, Hear, Options, cpus_of, device_there, missing
from bench.executors.importing import same_imports
from bench.executors.isolate import GRACE_S, Job, Summary
from bench.executors.slurm_settings import SlurmSettings, split
from bench.executors.sweep import Sweep
from bench.experiment.plan import Run
from bench.record import jobs as jobs_of
from bench.record.files import atomic_write, below
from bench.runner.events import Ended, Started

POLL_S = 0.25
ASIDE = ".slurm"  # in the experiment's folder: what submitit keeps of jobs, and their output
NO_SLURM = "no Slurm here: sbatch or srun is not on the PATH; submit from a login node"
# of jobs whose runs left no word
STATUSES: dict[str, Status] = {"OUT_OF_MEMORY": "oom", "TIMEOUT": "timeout"}


@register
class Slurm(Executor):
    """The command waits for its jobs; where it is killed they go on, and the next one waits for them."""

    name = "slurm"
    Settings = SlurmSettings
    settings: SlurmSettings

    def __init__(self, settings: SlurmSettings | None = None) -> None:
        super().__init__(settings)
        if find_spec("submitit") is None:
            raise missing("slurm")

    @property
    def detaches(self) -> bool:
        return self.settings.detach

    def device(self, asked: str) -> str:
        """Raises: ConfigError, also where this machine cannot submit: it is asked before anything is written."""
        device = device_there(asked, self.settings.gpus)
        if self.settings.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(NO_SLURM)
        return device

    def run_all(self, runs: list[Run], options: Options, listen: Hear, stop: threading.Event) -> list[Summary | None]:
        return _Sweep(runs, options.resolved(), self.settings, listen, stop).work()


class Attempt:
    """What a job does. submitit pickles it, calls it, and at preemption asks it for what is to be queued again."""

    def __init__(self, job: Job, terms: Terms, stop_file: Path) -> None:
        self.job, self.terms, self.stop_file = job, terms, stop_file

    def __call__(self) -> None:
        """Raises: StoreError where results cannot be written."""
        self._stop, self._errors = threading.Event(), list[BaseException]()
        self._worker = threading.Thread(target=self._work)  # the main thread is for signals, which wait for the run
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        if self.stop_file.exists():
            return
        self._worker.start()
        while self._worker.is_alive():
            self._worker.join(POLL_S)
            if self.stop_file.exists():
                self._stop.set()
        for error in self._errors:
            raise error

    def checkpoint(self) -> Any:
        """Let the run save; what is left is the same attempt, no longer afresh."""
        from submitit.helpers import DelayedSubmission

        self._stop.set()
        self._worker.join(2 * GRACE_S)
        return DelayedSubmission(Attempt(self.job, replace(self.terms, fresh=False), self.stop_file))

    def _work(self) -> None:
        try:
            jobs_of.begun(self.job.folder)
            attempt(self.job, self.terms, lambda _: None, self._stop)
        except BaseException as error:  # for the thread that joins this one, which raises it
            self._errors.append(error)


class _Sweep(Sweep):
    def __init__(
        self, runs: list[Run], options: Options, settings: SlurmSettings, listen: Hear, stop: threading.Event
    ) -> None:
        super().__init__(runs, options, listen, stop)
        self.settings = settings
        self.aside = below(options.root, options.experiment, ASIDE)
        self.stop_file = self.aside / f"{uuid.uuid4().hex}.stop"
        self.jobs: dict[int, Any] = {}
        self.stood: dict[int, Summary | None] = {}  # the records as they were when their jobs were submitted
        self.started: set[int] = set()
        self.busy: set[int] = set()  # in some other process's hands
        self.terms = options.terms

    def work(self) -> list[Summary | None]:
        self.aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        waiting = set(range(len(self.runs)))
        try:
            while waiting or self.jobs or self.busy:
                if self.stop.is_set():
                    self._end()
                    break
                self._submit(sorted(waiting))
                waiting = set()
                if self.settings.detach:
                    break
                for index in [index for index, job in self.jobs.items() if self._is_over(index, job)]:
                    self._close(index, self.jobs.pop(index))
                time.sleep(BUSY_POLL_S if self.busy and not self.jobs else POLL_S)
                waiting = {index for index in self.busy if self._is_free(index)}
                self.busy -= waiting
        except BaseException:  # a stop, too, ends the jobs before it goes on
            self._end()
            raise
        finally:
            self.stop_file.unlink(missing_ok=True)
        return self.outcome

    def _submit(self, indices: list[int]) -> None:
        due = []
        for index in indices:
            if self._is_kept(index, afresh=self.terms.fresh and index not in self.started):
                continue
            if not self._is_free(index):
                self.busy.add(index)
            else:
                due.append(index)
        self.stood |= {index: self._folder(index).summary() for index in due}
        self.jobs |= self._queued(due)
        due = [index for index in due if index not in self.jobs]
        if due:
            by = self._executor()
            with same_imports(), by.batch():
                jobs = [by.submit(Attempt(self._job(index), self.terms, self.stop_file)) for index in due]
            self.jobs |= dict(zip(due, jobs, strict=True))
            for index, job in zip(due, jobs, strict=True):
                jobs_of.queued(self._folder(index), str(job.job_id))

    def _queued(self, indices: list[int]) -> dict[int, Any]:
        """The jobs of an earlier command that are still in the queue, by run: none is submitted twice."""
        from submitit import SlurmJob

        noted = {index: jobs_of.read(self._folder(index)).job for index in indices}
        names = {job for job in noted.values() if job}
        if not names or self.settings.cluster != "slurm" or self.terms.fresh or not shutil.which("squeue"):
            return {}
        asked = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(sorted(names))}"]
        there = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        return {k: SlurmJob(self.aside / "%j", job) for k, job in noted.items() if job and job in there}

    def _is_over(self, index: int, job: Any) -> bool:
        if index not in self.started and (self._folder(index).path / "spec.json").exists() and job.state == "RUNNING":
            self.started.add(index)
            self.listen(self.runs[index], Started())
        return bool(job.done())

    def _close(self, index: int, job: Any) -> None:
        """What came of a run, by its record; by the job's state where that says nothing."""
        folder = self._folder(index)
        if not self._is_free(index):  # an earlier job has it
            self.busy.add(index)
            return
        self.started.add(index)
        summary = folder.summary()
        if summary is None or summary == self.stood[index]:
            summary = self._without_word(index, job)
        self._is_done(index, summary, Ended)

    def _without_word(self, index: int, job: Any) -> Summary:
        state = str(job.state)
        told = (job.stderr() or "").strip().splitlines()
        last = f" ({told[-1].strip()[:200]})" if told else ""
        reason = f"job {job.job_id} ended as {state} and told nothing of it{last}; the same command continues it"
        return self._lost(index, STATUSES.get(state, "interrupted"), reason)

    def _end(self) -> None:
        """Let the runs at work save, and take back what has not begun."""
        if not self.jobs:
            return
        atomic_write(self.stop_file, b"")
        if self.settings.cluster == "slurm":  # SIGTERM, which an attempt takes as the same request
            for job in self.jobs.values():
                with contextlib.suppress(Exception):
                    job.cancel(check=False)
        deadline = time.monotonic() + GRACE_S + 2
        while self.jobs and time.monotonic() < deadline:
            for index in [index for index, job in self.jobs.items() if job.done()]:
                self.jobs.pop(index)
                if (summary := self._folder(index).summary()) is not None:
                    self._is_done(index, summary, Ended)
            time.sleep(POLL_S)
        for job in self.jobs.values():
            job.cancel(check=False)

    def _executor(self) -> Any:
        """Raises: ConfigError where this machine cannot submit."""
        import submitit

        of = self.settings
        try:
            by = submitit.AutoExecutor(self.aside / "%j", cluster=of.cluster, slurm_max_num_timeout=of.requeues)
        except RuntimeError as error:
            raise ConfigError(NO_SLURM) from error
        asked: dict[str, Any] = dict(
            mem_gb=of.mem_gb, gpus_per_node=of.gpus or None, slurm_array_parallelism=self.options.jobs
        )
        asked |= {f"slurm_{name}": getattr(of, name) for name in ("partition", "account", "qos")}
        asked["slurm_setup"] = of.setup or None
        asked["slurm_additional_parameters"] = dict(map(split, of.sbatch)) or None
        if of.gpu_type:
            asked |= {"gpus_per_node": None, "slurm_gpus_per_node": f"{of.gpu_type}:{of.gpus}"}
        given = {name: value for name, value in asked.items() if value is not None}
        by.update_parameters(name="bench", timeout_min=of.time_min, cpus_per_task=cpus_of(of.cpus, self.runs), **given)
        return by
