"""Resident memory of this process and its high-water mark, in bytes (Linux; None elsewhere)."""

import contextlib
import ctypes
import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): "reset the peak resident set size"; needs no privileges


def resident() -> int | None:
    return _field("VmRSS")


def peak() -> int | None:
    return _field("VmHWM")


def settle() -> int | None:
    """Give freed memory back, put the high-water mark down to what is resident now, and return that base line."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak()
    return resident()


def reset_peak() -> None:
    """Put the high-water mark down to what is resident now."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def _field(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
