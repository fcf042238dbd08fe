"""Runs on this machine, `jobs` at a time."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.executors.attempt import Terms, attempt
from bench.executors.isolate import Job
from bench.runner.events import Event
from bench.spec.plan import Run

BUSY_POLL_S = 1.0

Listener = Callable[[Run, Event], None]


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a run's identity."""

    root: Path
    experiment: str
    device: str
    jobs: int = 1
    data_dir: Path | None = None
    download: bool = False
    terms: Terms = Terms()  # noqa: RUF009  (frozen)


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
            run = runs[index]
            summary = attempt(_job(run, options, slot), options.terms, partial(listen, run), stop)
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


def _job(run: Run, options: Options, slot: int) -> Job:
    """What a slot is to do, on its share of the machine."""
    device, threads = _device(options.device, slot), _threads(options.jobs)
    return Job(run, options.root, options.experiment, device, threads, options.data_dir, options.download)


def _threads(jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _device(device: str, slot: int) -> str:
    """Slots take turns over the GPUs unless one is named."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{slot % torch.cuda.device_count()}"
