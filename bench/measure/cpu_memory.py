"""Resident memory of this process and its high-water mark, in bytes (Linux; None elsewhere)."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch

from bench.api.column import Column, Value
from bench.api.instrument import Gauge
from bench.catalog.register import register

SLACK = 2**20  # bytes of others' memory that may count
RESET_PEAK = b"5"  # proc(5): "reset the peak resident set size"; needs no privileges
MOST = 8192  # bytes of a file in /proc


@register
class CpuMemory(Gauge):
    """The peak of resident memory in training, above what was resident after set-up.

    Before training goes on, memory that was freed meanwhile (validation's, a checkpoint's) is given back, if it is more
    than SLACK, and the high-water mark is put down to what is left.
    """

    name = "cpu-memory"
    rank: ClassVar[int] = 31
    columns = (
        Column(
            "cpu_peak_rss_bytes",
            "peak CPU, MiB",
            "peak of resident memory during training steps, above what was resident after set-up",
            scale=2**-20,
            better="lower",
            shown="terminal",
        ),
    )

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._base: int | None = None
        self._peak: int | None = None
        self._left = 0  # resident when the gauge was last off

    def settle(self) -> None:
        gc.collect()
        trim()
        now = memory()
        self._base, self._left = (None, 0) if now is None else (now.resident, now.resident)

    def on(self) -> None:
        if roughly_resident() > self._left + SLACK:
            trim()  # not each time: pages that were given back must be had again, which takes time
        reset_peak()

    def off(self) -> None:
        now = memory()
        if now is not None and self._base is not None:
            self._left = now.resident
            self._peak = max(self._peak or 0, now.peak - self._base)

    def read(self) -> Mapping[str, Value]:
        return {"cpu_peak_rss_bytes": self._peak}

    def state_dict(self) -> dict[str, Any]:
        return {"peak": self._peak}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._peak = state["peak"]


class Memory(NamedTuple):
    """Bytes resident now, and at most since the mark was reset."""

    resident: int
    peak: int


def memory() -> Memory | None:
    """What the kernel says of this process; None where it says nothing."""
    try:
        status = os.pread(_file(os.getpid(), "status", os.O_RDONLY), MOST, 0)
        resident, peak = (int(status.split(name, 1)[1].split(None, 1)[0]) for name in (b"VmRSS:", b"VmHWM:"))
    except (OSError, IndexError, ValueError):
        return None
    return Memory(1024 * resident, 1024 * peak)


def roughly_resident() -> int:
    """Within some dozens of pages, and quicker; 0 where the kernel does not say."""
    try:
        pages = os.pread(_file(os.getpid(), "statm", os.O_RDONLY), MOST, 0).split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Give freed memory back to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> None:
    """Put the high-water mark down to what is resident now."""
    with contextlib.suppress(OSError):
        os.pwrite(_file(os.getpid(), "clear_refs", os.O_WRONLY), RESET_PEAK, 0)


@cache
def _file(pid: int, name: str, mode: int) -> int:
    """A file of a process in /proc, kept open: opening takes longer than reading, and training waits for it."""
    return os.open(f"/proc/{pid}/{name}", mode | os.O_CLOEXEC)
