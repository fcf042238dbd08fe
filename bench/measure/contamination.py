"""Whether others were at work where a run was timed: on its cores, or on its GPU.

On the cores: how long the kernel had them busy, less what this process used. Every Linux tells that to everybody.
Pressure (/proc/pressure) and a thread's wait for a core (/proc/self/schedstat) do not tell strangers from threads of
our own that are too many, and the wait of a thread that has ended is lost.

Others disturb a run as soon as they and its threads want more cores than there are. Runs of one sweep share the cores
out among them, and still disturb each other, by memory and clock rate: they count wherever they are at work.

Read once in some seconds at most, while no step runs: the first reading after a while may take milliseconds, on virtual
machines whose host takes back what lies idle. Not seen: what works outside of a container that hides it.
"""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from bench.api.column import Column, Value
from bench.api.instrument import Gauge
from bench.catalog.register import register
from bench.measure import cpu_load, nvml
from bench.measure.cpu_load import Load

WINDOW_S = 5.0  # between two readings, at least
LEAST_S = 1.0  # of a run of which anything is said
SLACK = 0.1  # cores that others may use: what a quiet machine does beside

BY_OTHERS = "other processes on the cores"
BY_SIBLINGS = "other runs of the same sweep on the cores"
OTHERS_ON_GPU = "another process on the GPU"
SIBLINGS_ON_GPU = "another run of the same sweep on the GPU"


@register
class Contamination(Gauge):
    """Others' work while training goes on. Pauses of some seconds, for validation say, count with it."""

    name = "contamination"
    rank: ClassVar[int] = 28
    columns = (
        Column(
            "contamination", "disturbed by",
            f"who else was at work on the cores (more than {SLACK} of one, and more than was free) or on the GPU",
            text=True,
        ),
        Column(
            "other_load", "other load, cores",
            "cores that others kept busy while training went on, of those that the run may use; other virtual "
            "machines count where the kernel knows of them",
            better="lower",
        ),
    )  # fmt: skip

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._before: Load | None = None  # at the beginning of the present window
        self._sum = Load(0, 0, 0, 0)
        self._on_gpu: set[str] = set()

    def on(self) -> None:
        if self._before is None:
            self._before = cpu_load.load()

    def off(self) -> None:
        if self._before is not None and time.perf_counter() - self._before.at >= WINDOW_S:
            self._close()

    def read(self) -> Mapping[str, Value]:
        self._close()
        if self._sum.at < LEAST_S:
            return {"contamination": None, "other_load": None}
        n_cores, threads = len(cpu_load.cores()), torch.get_num_threads()
        found = [*on_cores(self._sum, n_cores, threads), *sorted(self._on_gpu)]
        return {"contamination": "; ".join(found), "other_load": other_cores(self._sum)}

    def state_dict(self) -> dict[str, Any]:
        self._close()
        return {"sum": list(self._sum), "on_gpu": sorted(self._on_gpu)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sum, self._on_gpu = Load(*state["sum"]), set(state["on_gpu"])

    def _close(self) -> None:
        """End the window; the next one begins with the steps that follow."""
        if self._before is not None and (now := cpu_load.load()) is not None:
            self._sum = self._sum.plus(now.since(self._before))
            self._on_gpu |= set(on_gpu(self.device))
        self._before = None


def other_cores(load: Load) -> float:
    """How many cores others kept busy."""
    return max(0.0, load.all_s - load.own_s) / load.at


def on_cores(load: Load, n_cores: int, threads: int) -> Iterator[str]:
    """Who disturbed a run of so many threads, over the time load.at."""
    of_all = other_cores(load)
    of_siblings = min(load.siblings_s / load.at, of_all)
    if of_all - of_siblings > SLACK and of_all + threads > n_cores + SLACK:
        yield BY_OTHERS
    if of_siblings > SLACK:
        yield BY_SIBLINGS


def on_gpu(device: torch.device) -> Iterator[str]:
    """Whose processes are on the GPU beside this one, which is on it in any case."""
    gpu = nvml.gpu(device)
    there = (gpu.processes() if gpu is not None else None) or []
    if os.getpid() in there:
        siblings = set(there) & set(cpu_load.siblings())
        strangers = len(there) - len(siblings) - 1
    else:  # in a container the driver has other numbers for processes than we
        siblings, strangers = set(), len(there) - 1
    if strangers > 0:
        yield OTHERS_ON_GPU
    if siblings:
        yield SIBLINGS_ON_GPU
