"""What keeps the cores of this process busy, in seconds of one core, as the kernel counts them (Linux; None elsewhere).

The kernel counts in ticks of a hundredth of a second: readings a second or more apart tell something.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
BUSY = (1, 2, 3, 6, 7, 8)  # fields of a line of /proc/stat: user, nice, system, irq, softirq, steal; see proc(5)
OF_PROCESS = slice(11, 15)  # fields of /proc/PID/stat after its name: utime, stime, cutime, cstime
OF_CHILDREN = slice(13, 15)


class Load(NamedTuple):
    """Up to a moment of the clock, or between two: seconds of our cores that all used, this process, its siblings."""

    at: float
    all_s: float
    own_s: float
    siblings_s: float

    def since(self, before: "Load") -> "Load":
        return Load(*(a - b for a, b in zip(self, before, strict=True)))

    def plus(self, more: "Load") -> "Load":
        return Load(*(a + b for a, b in zip(self, more, strict=True)))


def cores() -> frozenset[int]:
    """Those that this process may run on; in a run of a sweep those of the whole sweep, which its slots share out."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(range(os.cpu_count() or 1))
    if multiprocessing.parent_process() is not None:
        with suppress(OSError):  # the server may be gone
            return frozenset(os.sched_getaffinity(os.getppid()))
    return frozenset(os.sched_getaffinity(0))


def load() -> Load | None:
    """Since the machine started, or the processes. A core that a hypervisor has given to others counts as busy."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        lines = [line.split() for line in (PROC / "stat").read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return None
    ours = {f"cpu{k}" for k in cores()}
    busy = sum(int(fields[k]) for fields in lines if fields[0] in ours for k in BUSY)
    own = sum(os.times()[:4])  # with children that have ended
    return Load(time.perf_counter(), busy / tick, own, sum(_siblings()) / tick)


def siblings() -> list[int]:
    """The other processes that the one which forks our runs has at work; none where no such process made this one."""
    if multiprocessing.parent_process() is None:
        return []
    server = os.getppid()
    try:
        children = (PROC / str(server) / "task" / str(server) / "children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in children.split() if int(pid) != os.getpid()]


def _siblings() -> Iterator[int]:
    """Ticks of the siblings and of those that were: when one ends, its time passes to the process that forked it."""
    if multiprocessing.parent_process() is not None:
        yield _ticks(os.getppid(), OF_CHILDREN)
    for pid in siblings():
        yield _ticks(pid, OF_PROCESS)


def _ticks(pid: int, which: slice) -> int:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0  # ended this moment
    return sum(map(int, text.rpartition(")")[2].split()[which]))  # a name may hold spaces and brackets
