"""A group of worker processes: started together, ended together, whatever happens to one of them.

Workers meet through a file in a folder of their own and talk over the loopback interface, so no port can be taken. Each
has one core and one thread. They are forked from the server that starts runs, and end with their parent.
"""

import contextlib
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from bench.api.errors import BenchError
from bench.executors.isolate import context, die_with_parent, quiet_main
from bench.scale.work import Work

LOOPBACK = {"darwin": "lo0"}.get(sys.platform, "lo")
POLL_S = 0.2  # after which it is asked whether to stop
SETTLE_S = 0.5  # in which the failures that follow from one are waited for, so that the first cause is told


class WorkerError(BenchError):
    """A worker failed, or was killed."""


class Act(Protocol):
    """What every worker does, a function on top of a module. Returns plain values."""

    def __call__(self, work: Work, link: Any) -> dict[str, Any]: ...


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_group(
    act: Act,
    work: Work,
    workers: int,
    stop: threading.Event | None = None,
    began: Callable[[list[int]], None] | None = None,
) -> list[dict[str, Any]] | None:
    """What each worker returns, in their order; None where `stop` came before the end.

    began: told the process ids. Raises: WorkerError, when every process of the group is gone.
    """
    processes = []
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        try:
            pipes: list[Connection] = []
            for rank in range(workers):
                receive, send = context().Pipe(duplex=False)
                of_worker = (act, work, rank, workers, folder, send)
                processes.append(context().Process(target=_child, args=of_worker, daemon=False))
                with quiet_main():
                    processes[-1].start()
                send.close()
                pipes.append(receive)
            if began is not None:
                began([process.pid or 0 for process in processes])
            return _results(pipes, processes, stop or threading.Event())
        finally:
            for process in processes:
                if process.pid is not None:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(process.pid, signal.SIGKILL)
                    process.join()


def _results(pipes: list[Connection], processes: list[Any], stop: threading.Event) -> list[dict[str, Any]] | None:
    found: dict[int, dict[str, Any]] = {}
    failed: dict[int, tuple[float, str]] = {}  # when, and why
    killed: dict[int, tuple[float, str]] = {}
    deadline: float | None = None
    while len(found) < len(pipes):
        if stop.is_set():
            return None
        waiting = {rank: pipe for rank, pipe in enumerate(pipes) if rank not in {*found, *failed, *killed}}
        ready = multiprocessing.connection.wait(waiting.values(), POLL_S) if waiting else []
        for rank in [rank for rank, pipe in waiting.items() if pipe in ready]:
            try:
                result = pipes[rank].recv()
            except (EOFError, OSError):
                processes[rank].join(SETTLE_S)
                killed[rank] = (time.monotonic(), _death(processes[rank].exitcode))
                continue
            if isinstance(result, tuple):
                failed[rank] = result
            else:
                found[rank] = result
        if failed or killed:
            deadline = deadline or time.monotonic() + SETTLE_S
            if time.monotonic() >= deadline or not waiting:
                # who was killed is the cause; what the others then say of broken connections is not
                (_, why), rank = min((told, rank) for rank, told in (killed or failed).items())
                raise WorkerError(f"worker {rank} of {len(pipes)} {why}; the others were ended")
    return [found[rank] for rank in range(len(pipes))]


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended without a result (exit code {exitcode})"


def _child(act: Act, work: Work, rank: int, workers: int, folder: str, send: Connection) -> None:
    """Entry point in the child."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    with Path(folder, f"worker-{rank}.txt").open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    try:
        send.send(_joined(act, work, rank, workers, folder))
    except Exception as error:  # a method may raise anything; the parent says what
        send.send((time.monotonic(), f"failed: {type(error).__name__}: {' '.join(str(error).split())}"))
    finally:
        send.close()


def _joined(act: Act, work: Work, rank: int, workers: int, folder: str) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from bench.scale.link import Link

    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {own[rank % len(own)]})
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if work.device == "cuda" else torch.device(work.device)
    if workers == 1:
        return act(work, Link(rank, workers, device))
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    backend = "nccl" if work.device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    result = act(work, Link(rank, workers, device))
    dist.destroy_process_group()  # not after an error: the others would fail for it before the error is told
    return result
