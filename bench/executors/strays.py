"""Processes that a run has started in sessions of their own, and left behind: no signal to its group reaches them.

Linux gives a process whose parent has ended to the nearest ancestor that has asked for such: the run itself, and once
that is over the server that it was forked from.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Set
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 1.0  # until the server has taken note of the ends of those that were killed


def adopt() -> None:
    """Become the parent of descendants that have lost theirs (Linux; nothing elsewhere)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(server: int, runs: Set[int]) -> None:
    """Kill the children of a server that are not runs, and what comes to it from them."""
    deadline = time.monotonic() + PATIENCE_S
    while (strays := _children(server) - runs) and time.monotonic() < deadline:
        for stray in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(stray, signal.SIGKILL)
        time.sleep(0.005)


def _children(pid: int) -> set[int]:
    """Of a process of one thread; none where the kernel does not say."""
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()
