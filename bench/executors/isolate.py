"""One run in a child process of its own: time-out, signals, memory, and the exit put into words.

Children are forked from a server that has torch loaded already, so that a run starts in milliseconds. A child
leads a process group, which is killed as a whole; it ends by itself when its parent is gone.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from bench.api.status import Status
from bench.executors import strays
from bench.executors.importing import same_imports
from bench.executors.output import Output
from bench.experiment.plan import Run
from bench.record.folder import RunFolder
from bench.runner.events import Event

Summary = dict[str, Any]

GRACE_S = 4.0  # between the request to stop and the kill: who takes the machine away waits for seconds
PRELOAD = ["bench.executors.preload"]
SERVER_GONE = 255  # what a child's exit code reads as when the server that would tell it is gone
KILLED = "killed from outside (SIGKILL); the same command continues it"


@dataclass(frozen=True)
class Job:
    """What a child needs to know. `device` is a torch device name; `cores`: those to keep to, where there are any.

    micro_batches: parts into which each batch is cut, after whole ones have run out of memory.
    """

    run: Run
    root: Path
    experiment: str
    device: str
    data_dir: Path | None
    download: bool
    cores: tuple[int, ...] = ()
    micro_batches: int = 1
    keep_weights: bool = False

    @property
    def threads(self) -> int:
        return self.run.spec.threads

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root, self.experiment, self.run.spec.run_id)


def context() -> multiprocessing.context.ForkServerContext:
    """The fork server, started by its first child, or ahead of it by `warm`, and anew where it was killed."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


def warm() -> None:
    """Let the server load torch while the parent is still planning."""
    context()
    with same_imports():
        forkserver.ensure_running()


def execute(
    job: Job, lock: int, *, timeout_s: float | None, stop: threading.Event, tell: Callable[[Event], None]
) -> Summary:
    """Run a job in a child and wait for its end, asleep. Returns the run's summary, whatever happened.

    `lock` is the folder's lock; the child holds it too, so that it outlives this process if it must.
    """
    receive, send = context().Pipe(duplex=False)
    oom_kills = _oom_kills()
    output = Output(job.folder.stderr)
    process = context().Process(target=_child, args=(job, send, DupFd(lock), DupFd(output.write)), daemon=False)
    try:
        with _starting, quiet_main():
            process.start()
            assert process.pid is not None
            pid = process.pid
            _runs.add(pid)
    except (OSError, EOFError):  # the server died between two runs of the sweep
        return {"status": "interrupted", "reason": "the process that starts runs is gone; the same command continues"}
    finally:
        os.close(output.write)
    send.close()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    summary: Summary | None = None
    why: Status | None = None
    asked_at: float | None = None
    watched: list[Any] = [receive, process.sentinel]
    while True:
        wait_s = 0.5 if deadline is None else min(0.5, max(0.0, deadline - time.monotonic()))
        if receive in multiprocessing.connection.wait(watched, wait_s):
            message = _receive(receive)
            if message is None:
                watched.remove(receive)
            elif isinstance(message, dict):
                summary = message
            else:
                tell(message)
        if not process.is_alive():
            if process.exitcode != SERVER_GONE or receive not in watched:
                break
            if process.sentinel in watched:  # the run itself goes on: from here its pipe tells of its end
                watched.remove(process.sentinel)
        now = time.monotonic()
        if stop.is_set() and asked_at is None:
            why, asked_at = "interrupted", now
            _signal(pid, signal.SIGTERM, group=False)
        if why is None and deadline is not None and now >= deadline:
            why = "timeout"
            _signal(pid, signal.SIGKILL)
        if asked_at is not None and now - asked_at > GRACE_S:
            _signal(pid, signal.SIGKILL)
    while summary is None and receive.poll() and (message := _receive(receive)) is not None:
        summary = message if isinstance(message, dict) else None
    process.join()
    receive.close()
    _signal(pid, signal.SIGKILL)  # what the run may have started and left behind
    with _starting:  # so that the server has no child that is not known yet
        _runs.discard(pid)
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # told nowhere else
        strays.end(server, _runs)
    output.close()
    if summary is not None:
        return summary
    status, reason = _verdict(process.exitcode, why, timeout_s, _oom_kills() > oom_kills)
    return {"status": status, "reason": reason}


def _receive(connection: Connection) -> Event | Summary | None:
    """The next event, or the summary; None where the other end is gone."""
    try:
        message: Event | Summary = connection.recv()
    except (EOFError, OSError):
        return None
    return message


def _verdict(exitcode: int | None, why: Status | None, timeout_s: float | None, oom_kill: bool) -> tuple[Status, str]:
    """Status and reason of a child that left no summary. Nobody else's death is the method's failure."""
    if why == "timeout":
        return "timeout", f"stopped after {timeout_s:g} s"
    if why == "interrupted":
        return "interrupted", "stopped on request; the same command continues it"
    if exitcode == SERVER_GONE:
        return "interrupted", "the process that starts runs was killed; the same command continues it"
    if exitcode == -signal.SIGKILL:
        if oom_kill:
            return "oom", "killed by the system for want of memory"
        return "interrupted", KILLED
    if exitcode is not None and exitcode < 0:
        return "crashed", f"killed by {signal.Signals(-exitcode).name}"
    return "crashed", f"ended with exit code {exitcode} and no result; see stderr.txt"


def is_kill(summary: Summary) -> bool:
    """Whether a run ended by a SIGKILL that neither this command nor the system for want of memory has sent."""
    return summary.get("reason") == KILLED


def _child(job: Job, send: Connection, lock: Any, output: Any) -> None:
    """Entry point in the child."""
    os.setsid()
    strays.adopt()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server ignores it
    gc.freeze()  # what the server has loaded stays: no collection in a run needs to look at it again
    if job.cores and hasattr(os, "sched_setaffinity"):  # before torch starts threads, which inherit it
        with contextlib.suppress(OSError):  # a core may have been taken from us since
            os.sched_setaffinity(0, job.cores)
    held = lock.detach()  # noqa: F841  (closed by the end of the process, which gives the folder free)
    die_with_parent()
    printed = output.detach()
    os.dup2(printed, sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(printed, 2)
    os.close(printed)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid = os.getpid()

    def tell(message: Event | Summary) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if os.getpid() != pid:  # the method has forked, and both went on: one of them is the run
            os._exit(0)
        send.send(message)

    tell(_run(job, tell))


def _run(job: Job, tell: Callable[[Event | Summary], None]) -> Summary:
    import traceback

    import torch

    from bench.api.errors import BenchError, DataError, SourceError, StoreError, is_out_of_memory
    from bench.measure.environment import environment
    from bench.runner.session import Session
    from bench.runner.setup import Uncuttable
    from bench.runner.state import Place

    began, folder = time.monotonic(), job.folder
    torch.set_num_threads(job.threads)
    checked = False
    try:
        device = torch.device(job.device)
        folder.create(job.run.spec.model_dump(mode="json"), environment(device, job.threads))
        parts = job.run.load()
        checked = True  # that what was imported has the hashes of the spec
        instruments = [entry.load() for entry in job.run.instruments if not entry.is_ours]
        metrics = [entry.load() for entry in job.run.metrics if not entry.is_ours]
        columns = [*(cls.columns() for cls in metrics), *(cls.columns for cls in instruments)]
        folder.write_columns(list(chain.from_iterable(columns)))
        place = Place(device, job.data_dir, job.download)
        session = Session(
            job.run.spec, parts, place, folder, tell, micro_batches=job.micro_batches, keep_weights=job.keep_weights
        )

        def stop(*_: object) -> None:
            session.stop_requested = True

        signal.signal(signal.SIGTERM, stop)
        summary = session.go()
    except Uncuttable as reason:
        summary = {"status": "oom", "reason": str(reason), "uncuttable": True}
    except (StoreError, DataError, SourceError) as error:  # a full disk, a damaged file, an edit: it can go on later
        summary = {"status": "interrupted", "reason": str(error)}
    except BenchError as error:
        summary = {"status": "crashed", "reason": str(error)}
    except Exception as error:  # a method may raise anything; the record says what
        traceback.print_exc()
        summary = {
            "status": "oom" if is_out_of_memory(error) else "crashed",
            "reason": f"{type(error).__name__}: {' '.join(str(error).split())}",
        }
    return {**summary, "sources_checked": checked, "wall_s": time.monotonic() - began}


def die_with_parent() -> None:
    """End this process group, and what has left it, when the parent ends, however it ends.

    By a thread asleep on a pipe, free of cost.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        strays.end_below()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _signal(pid: int, number: signal.Signals, *, group: bool = True) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _oom_kills() -> int:
    """How often the kernel has killed for memory, in this control group or on this machine."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


_main_lock = threading.Lock()
_starting = threading.Lock()
_runs = set[int]()  # process ids of those that the server has forked for us and that are not over


@contextlib.contextmanager
def quiet_main() -> Iterator[None]:
    """Children that start meanwhile import from where this process did, and not its main module: none needs it."""
    main: dict[str, Any] = vars(sys.modules["__main__"])
    with _main_lock, same_imports():
        kept = {name: value for name, value in main.items() if name in ("__file__", "__spec__")}
        main |= {"__spec__": None, "__file__": None}
        try:
            yield
        finally:
            main |= kept
