"""Runs on this machine, `jobs` at a time."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import isolate
from bench.isolate import Job
from bench.plan import Run
from bench.store import RunFolder

BUSY_POLL_S = 1.0


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a run's identity."""

    root: Path
    experiment: str
    device: str
    jobs: int = 1
    timeout_s: float | None = None
    data_dir: Path | None = None
    download: bool = False
    fresh: bool = False


# called with the run, and "start" | "progress" | "done" | "kept" and what there is to say
Listener = Callable[[Run, str, dict[str, Any]], None]


def run_all(runs: list[Run], options: Options, listen: Listener, stop: threading.Event) -> list[dict[str, Any] | None]:
    """Bring every run to an end and return the summaries in the plan's order; None where `stop` came before the start.

    Finished runs are kept, interrupted ones continued. A run that another process works on is waited for.
    """
    summaries: dict[int, dict[str, Any]] = {}
    queue: deque[int] = deque(range(len(runs)))
    guard = threading.Lock()

    def worker(slot: int) -> None:
        while not stop.is_set():
            with guard:
                if not queue:
                    return
                index = queue.popleft()
            summary = _attempt(runs[index], options, slot, listen, stop)
            if summary is None:  # another process has it: come back to it later
                with guard:
                    queue.append(index)
                time.sleep(BUSY_POLL_S)
            else:
                summaries[index] = summary

    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        workers: list[Future[None]] = [pool.submit(worker, slot) for slot in range(options.jobs)]
        try:
            done, _ = wait(workers, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:  # an error or Ctrl-C: let the children save, then go
            stop.set()
            raise
    return [summaries.get(index) for index in range(len(runs))]


def _attempt(run: Run, options: Options, slot: int, listen: Listener, stop: threading.Event) -> dict[str, Any] | None:
    folder = RunFolder(options.root, options.experiment, run.spec.run_id)
    lock = folder.lock()
    if lock is None:
        return None
    try:
        if options.fresh:
            folder.clear()
        before = folder.summary()
        if before is not None and folder.is_final() and not _deserves_more_time(before, options.timeout_s):
            listen(run, "kept", before)
            return before
        listen(run, "start", {})
        job = Job(
            run,
            options.root,
            options.experiment,
            _device(options.device, slot),
            _threads(options.jobs),
            options.data_dir,
            options.download,
        )
        summary = isolate.execute(
            job, lock, timeout_s=options.timeout_s, stop=stop,
            on_message=lambda message: listen(run, "progress", message),
        )  # fmt: skip
        summary = {
            **summary,
            "method": run.spec.method,
            "net": run.spec.net,
            "dataset": run.spec.dataset,
            "seed": run.spec.seed,
            "device": run.spec.device,
            "timeout_s": options.timeout_s,
        }
        folder.finish(summary)
        listen(run, "done", summary)
        return summary
    finally:
        os.close(lock)


def _deserves_more_time(summary: dict[str, Any], timeout_s: float | None) -> bool:
    """A run that ran out of time is continued once it is given more."""
    if summary.get("status") != "timeout":
        return False
    return timeout_s is None or timeout_s > (summary.get("timeout_s") or 0)


def _threads(jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _device(device: str, slot: int) -> str:
    """Slots take turns over the GPUs unless one is named."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{slot % torch.cuda.device_count()}"
