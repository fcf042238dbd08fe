"""Resident memory of this process and those it has started, and its high-water mark, in bytes (Linux; None elsewhere).

The marks of several processes are added up: an upper bound, for they need not peak at once, and pages that they
share count in each.
"""

import contextlib
import ctypes
import gc
from pathlib import Path

import psutil

_PROC = Path("/proc")
_RESET_PEAK = "5"  # proc(5): "reset the peak resident set size"; needs no privileges


def resident() -> int | None:
    return _field("VmRSS")


def peak() -> int | None:
    return _field("VmHWM")


def settle() -> int | None:
    """Give freed memory back, put the high-water mark down to what is resident now, and return that base line."""
    gc.collect()
    trim()
    return resident()


def trim() -> None:
    """Give freed memory back to the system, and put the high-water mark down to what is resident then."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    for process in _family():
        with contextlib.suppress(OSError):
            (process / "clear_refs").write_text(_RESET_PEAK)


def _field(name: str) -> int | None:
    """The sum over this process and its descendants; None where this one cannot be read."""
    own, *others = (_read(process, name) for process in _family())
    return None if own is None else own + sum(value or 0 for value in others)


def _read(process: Path, name: str) -> int | None:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _family() -> list[Path]:
    with contextlib.suppress(psutil.Error):
        return [_PROC / "self", *(_PROC / str(p.pid) for p in psutil.Process().children(recursive=True))]
    return [_PROC / "self"]
