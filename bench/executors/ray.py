"""Tasks on a Ray cluster, GPUs as its resources; what a lost node had in hand is tried elsewhere.

Nodes that see the results folder write there, so that a run continues from its checkpoint wherever it is tried again.
Else records travel through Ray's object store: there with what is left of an earlier attempt, back when it is over.
Every node needs this suite in the same version, and data and plugin files under the same paths.
"""

import contextlib
import os
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from bench.api.errors import ConfigError, StoreError
from bench.api.status import Status
from bench.catalog.register import register
from bench.executors.attempt import BUSY_POLL_S, Terms, attempt
from bench.executors.executor import Executor, Hear, Options, cpus_of, device_there, missing
from bench.executors.isolate import Job, Summary
from bench.executors.ray_cluster import ANSWER_S, connected
from bench.executors.sweep import Sweep
from bench.experiment.plan import Run
from bench.record.files import atomic_write
from bench.runner.events import Ended, Event

POLL_S = 0.25
AHEAD = 2  # tasks asked for, for each that there is room for: the next is there when one ends
GONE = "the Ray cluster is gone; the same command continues it"


class RaySettings(BaseModel):
    address: str | None = Field(None, description="HOST:PORT of a cluster, or auto; else one of its own, on loopback")
    cpus: int | None = Field(None, ge=1, description="cores of each run; left out: as many as its threads")
    gpus: float = Field(0, ge=0, description="GPUs of each run; a part lets runs share one")
    retries: int = Field(3, ge=0, description="further tries of a run whose worker or node was lost")


@register
class Ray(Executor):
    """Tasks, each an attempt at a run; events and the request to stop go by one small actor beside this process."""

    name = "ray"
    Settings = RaySettings
    settings: RaySettings

    def __init__(self, settings: RaySettings | None = None) -> None:
        super().__init__(settings)
        if find_spec("ray") is None:
            raise missing("ray")

    def device(self, asked: str) -> str:
        return device_there(asked, self.settings.gpus)

    def run_all(self, runs: list[Run], options: Options, listen: Hear, stop: threading.Event) -> list[Summary | None]:
        with connected(self.settings.address):
            return _Sweep(runs, options.resolved(), self.settings, listen, stop).work()


class Desk:
    """Between the command and its runs: news one way, the request to stop the other. An actor, in a process alone."""

    def __init__(self) -> None:
        self._news: list[tuple[int, str, Event]] = []
        self._stopping = False

    def tell(self, index: int, node: str, event: Event) -> None:
        self._news.append((index, node, event))

    def news(self) -> list[tuple[int, str, Event]]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._stopping = True

    def is_stopping(self) -> bool:
        return self._stopping


def attempt_there(
    index: int, job: Job, terms: Terms, files: Mapping[str, bytes] | None, desk: Any
) -> tuple[Summary | None, dict[str, bytes] | None]:
    """On a node: the attempt, in the results folder, or where files are handed over in one that lasts as long.

    Raises: ConfigError where the node's sources are not those that the run was planned with; StoreError.
    """
    import ray

    _check_sources(job.run)
    stop, over = threading.Event(), threading.Event()
    node = ray.get_runtime_context().get_node_id()

    def watch() -> None:
        while not (stop.is_set() or over.wait(POLL_S)):
            try:
                if ray.get(desk.is_stopping.remote(), timeout=ANSWER_S):
                    stop.set()
            except ray.exceptions.RayError:  # the command has gone
                stop.set()

    def tell(event: Event) -> None:
        desk.tell.remote(index, node, event)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        if files is None:
            return attempt(job, terms, tell, stop), None
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            job = replace(job, root=Path(scratch))
            job.folder.path.mkdir(parents=True)
            job.folder.replace(files)
            return attempt(job, terms, tell, stop), job.folder.files()
    finally:
        over.set()


class _Sweep(Sweep):
    """One list of runs on a cluster that this process is connected to."""

    def __init__(
        self, runs: list[Run], options: Options, settings: RaySettings, listen: Hear, stop: threading.Event
    ) -> None:
        import ray

        super().__init__(runs, options, listen, stop)
        api: Any = ray
        self.ray, self.settings = api, settings
        self.queue = deque(range(len(runs)))
        self.later: dict[int, float] = {}  # busy elsewhere: when to ask again
        self.flying: dict[Any, int] = {}
        self.where: dict[int, str] = {}  # nodes, by what runs say of themselves
        self.locks: dict[int, int] = {}  # of folders whose records travel
        self.losses: Counter[int] = Counter()
        here = api.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            api.get_runtime_context().get_node_id(), soft=False
        )
        self.desk = api.remote(num_cpus=0, scheduling_strategy=here)(Desk).remote()
        self.cpus = cpus_of(settings.cpus, runs)
        shape = dict(num_cpus=self.cpus, num_gpus=settings.gpus, max_retries=0)
        self.task = api.remote(**shape)(attempt_there)
        self.shared = self._is_shared()

    def work(self) -> list[Summary | None]:
        told = False
        try:
            while self.queue or self.later or self.flying:
                if self.stop.is_set():
                    self.queue.clear()
                    self.later.clear()
                    if not told:
                        self._answer(self.desk.stop.remote())
                        told = True
                self._send()
                self._hear()
                if self.flying:
                    ready, _ = self.ray.wait(list(self.flying), timeout=POLL_S)
                    for ref in ready:
                        self._land(ref, self.flying.pop(ref))
                    self._write_off()
                else:
                    time.sleep(POLL_S)
            self._hear()
        except BaseException as error:  # a stop, too, ends the workers' runs before it goes on
            with contextlib.suppress(Exception):  # the desk may be gone with the cluster
                self._answer(self.desk.stop.remote())
            if not isinstance(error, (self.ray.exceptions.RayError, ConnectionError)):
                raise
            self._give_up(set(range(len(self.runs))) - set(self.summaries), GONE)
        finally:
            for fd in self.locks.values():
                os.close(fd)
        return self.outcome

    def _send(self) -> None:
        now = time.monotonic()
        for index in [index for index, at in self.later.items() if at <= now]:
            del self.later[index]
            self.queue.append(index)
        room = self._room()
        while self.queue and len(self.flying) < room:
            index = self.queue.popleft()
            folder, terms = self._folder(index), self.options.terms
            if self._is_kept(index, afresh=terms.fresh):
                continue
            files = None
            if not self.shared:
                if (fd := folder.lock()) is None:
                    self.later[index] = now + BUSY_POLL_S
                    continue
                self.locks[index] = fd
                files = {} if terms.fresh else folder.files()
            self.where.pop(index, None)
            ref = self.task.remote(index, self._job(index), terms, files, self.desk)
            self.flying[ref] = index

    def _land(self, ref: Any, index: int) -> None:
        exceptions = self.ray.exceptions
        try:
            summary, files = self.ray.get(ref)
        except exceptions.RayTaskError as error:
            self._unlock(index)
            self.stop.set()
            raise error.cause if isinstance(error.cause, (StoreError, ConfigError)) else error from None
        except exceptions.RayError as error:  # worker, node, or the cluster's memory
            out_of_memory = isinstance(error, exceptions.OutOfMemoryError)
            self._lose(index, type(error).__name__, "oom" if out_of_memory else "interrupted")
            return
        if files is not None:
            self._folder(index).replace(files)
        self._unlock(index)
        if summary is not None:
            self.summaries[index] = summary
        elif not self.stop.is_set():
            self.later[index] = time.monotonic() + BUSY_POLL_S

    def _write_off(self) -> None:
        """What is on nodes that the head has given up: where the network is cut, Ray itself waits on for minutes."""
        gone = {node["NodeID"] for node in self._asked_of_head(self.ray.nodes) if not node["Alive"]}
        for ref, index in list(self.flying.items()):
            if self.where.get(index) in gone:
                del self.flying[ref]
                self._lose(index, "its node is gone", "interrupted")

    def _lose(self, index: int, why: str, status: Status) -> None:
        """A try that came to nothing: another one, or the end of it."""
        self._unlock(index)
        self.where.pop(index, None)
        self.losses[index] += 1
        if self.losses[index] <= self.settings.retries and not self.stop.is_set():
            self.queue.append(index)
            return
        times = f"{self.losses[index]} time{'s' if self.losses[index] > 1 else ''}"
        self._give_up({index}, f"its Ray worker was lost {times} ({why}); the same command continues it", status)

    def _hear(self) -> None:
        for index, node, event in self._answer(self.desk.news.remote()):
            self.where[index] = node
            self.listen(self.runs[index], event)

    def _asked_of_head(self, question: Callable[[], Any]) -> Any:
        """What the head says; Ray itself would wait for one that is gone, and then end this process without a word."""
        said: list[Any] = []
        asking = threading.Thread(target=lambda: said.append(question()), daemon=True)
        asking.start()
        asking.join(ANSWER_S)
        if not said:
            raise ConnectionError("no answer from the head")
        return said[0]

    def _answer(self, ref: Any) -> Any:
        return self.ray.get(ref, timeout=ANSWER_S)

    def _give_up(self, indices: set[int], reason: str, status: Status = "interrupted") -> None:
        for index in sorted(indices):
            self._is_done(index, self._lost(index, status, reason, held=self.locks.get(index)), Ended)

    def _unlock(self, index: int) -> None:
        if (fd := self.locks.pop(index, None)) is not None:
            os.close(fd)

    def _room(self) -> int:
        """How many tasks to have asked for: nodes may come and go."""
        there: Mapping[str, float] = self._asked_of_head(self.ray.cluster_resources)
        if self.options.jobs:
            return self.options.jobs
        slots = there.get("CPU", 0) // self.cpus
        if self.settings.gpus:
            slots = min(slots, there.get("GPU", 0) // self.settings.gpus)
        return max(1, int(slots)) * AHEAD

    def _is_shared(self) -> bool:
        """Whether all nodes see the results folder, by a file in it."""
        mark = self.options.root / self.options.experiment / f".{uuid.uuid4().hex}.mark"
        atomic_write(mark, b"")
        affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        try:
            nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
            look = self.ray.remote(num_cpus=0)(os.path.exists)
            seen = [look.options(scheduling_strategy=affinity(n, soft=True)).remote(str(mark)) for n in nodes]
            return all(self.ray.get(seen, timeout=60))
        finally:
            mark.unlink(missing_ok=True)


def _check_sources(run: Run) -> None:
    for entry, planned in ((run.method, run.spec.method_source), (run.net, run.spec.net_source)):
        try:
            found: str | None = entry.source_hash()
        except OSError:
            found = None
        if found != planned:
            why = "has none" if found is None else "has other sources"
            raise ConfigError(
                f"node {socket.gethostname()} {why} of {entry.name} ({entry.file}); install the same suite"
            )
