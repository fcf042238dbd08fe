"""Runs on this machine, `jobs` at a time."""

import threading
import time
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial

from bench.catalog.register import register
from bench.executors.attempt import BUSY_POLL_S, attempt
from bench.executors.executor import Executor, Hear, Options
from bench.executors.isolate import Job, Summary
from bench.executors.sweep import Sweep
from bench.experiment import threads
from bench.experiment.plan import Run
from bench.measure.cpu_load import cores


@register
class Local(Executor):
    """A thread a slot, each waiting for one child at a time; a slot has cores of its own where there are enough."""

    name = "local"

    def run_all(self, runs: list[Run], options: Options, listen: Hear, stop: threading.Event) -> list[Summary | None]:
        sweep = _Sweep(runs, options, listen, stop)
        queue: deque[int] = deque(range(len(runs)))
        guard = threading.Lock()
        jobs = options.jobs or 1
        for n in {run.spec.threads for run in runs}:
            threads.check(n, jobs)

        def worker(slot: int) -> None:
            while not stop.is_set():
                with guard:
                    if not queue:
                        return
                    index = queue.popleft()
                job, tell = sweep.job(index, slot, jobs), partial(listen, runs[index])
                summary = attempt(job, options.terms, tell, stop)
                if summary is None:  # another process has it: come back to it later
                    with guard:
                        queue.append(index)
                    time.sleep(BUSY_POLL_S)
                else:
                    sweep.summaries[index] = summary

        with ThreadPoolExecutor(jobs) as pool:
            workers: list[Future[None]] = [pool.submit(worker, slot) for slot in range(jobs)]
            try:
                done, _ = wait(workers, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:  # an error or Ctrl-C: let the children save, then go
                stop.set()
                raise
        return sweep.outcome


class _Sweep(Sweep):
    def job(self, index: int, slot: int, jobs: int) -> Job:
        """What a slot is to do, on its share of the machine."""
        own = share(sorted(cores()), slot, jobs) if jobs > 1 else ()
        return self._job(index, device=_device(self.options.device, slot), cores=own)


def share(there: list[int], slot: int, jobs: int) -> tuple[int, ...]:
    """The cores of a slot, disjoint from every other's; none where there are more slots than cores."""
    each = len(there) // jobs
    return tuple(there[slot * each : (slot + 1) * each])


def _device(device: str, slot: int) -> str:
    """Slots take turns over the GPUs unless one is named."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{slot % torch.cuda.device_count()}"
