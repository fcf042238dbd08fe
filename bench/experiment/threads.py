"""How many threads a training step is computed in: one unless told, and never more than there are cores for.

One, because it holds everywhere: sums round alike on every machine, and times stand beside each other. Several threads
wait for the slowest of them at each kernel; where other work takes one's core away, a step of a small net takes a
hundred times as long. On two quiet cores two threads gain a fifth.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from bench.api.errors import ConfigError

CGROUPS = Path("/sys/fs/cgroup")
OMP = "OMP_NUM_THREADS"


def default() -> int:
    """What OMP_NUM_THREADS says, else 1."""
    said = os.environ.get(OMP, "").partition(",")[0].strip()  # later ones are of nested regions
    return int(said) if said.isascii() and said.isdigit() and int(said) > 0 else 1


def check(threads: int, jobs: int = 1) -> None:
    """Raises: ConfigError where runs at a time, of so many threads each, would take more cores than there are.

    Runs of one thread each may be more than the cores: they share them, and none waits for another.
    """
    there = granted()
    if threads > 1 and threads * jobs > there:
        runs = f"{jobs} runs of {threads} threads each" if jobs > 1 else f"{threads} threads"
        lower = "--jobs or --threads" if jobs > 1 else f"--threads (or {OMP})"
        raise ConfigError(f"{runs} take {threads * jobs} cores, and this process is granted {there}; lower {lower}")


def granted() -> int:
    """Cores that this process may use: by its affinity, and by the CPU quota of its control groups (Linux)."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([affine, *_quotas()])))


def _quotas() -> Iterator[float]:
    """In cores, of the control groups that this process is in and those above; none where nothing limits it."""
    for folder in _groups():
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                limit, period, *_ = " ".join((folder / file).read_text() for file in files).split()
                if limit != "max" and int(limit) > 0:  # -1 in the older form: unlimited
                    yield int(limit) / int(period)
            except (OSError, ValueError, ZeroDivisionError):
                continue


def _groups() -> Iterator[Path]:
    """Folders of control groups, of both versions, from the innermost out; in a container, the root is its own."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    seen = {CGROUPS, CGROUPS / "cpu"}
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "cpu", "cpu,cpuacct"):
            inner = (CGROUPS / kinds).joinpath(path.lstrip("/"))
            seen |= {folder for folder in (inner, *inner.parents) if folder.is_relative_to(CGROUPS)}
    yield from seen
