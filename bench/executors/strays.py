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
    """Kill what runs have left to a server: its children that are neither runs nor of its own session.

    Those of its session it has forked itself, for what else the caller does.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (strays := _adopted(server) - runs) and time.monotonic() < deadline:
        for stray in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(stray, signal.SIGKILL)
        time.sleep(0.005)


def _adopted(server: int) -> set[int]:
    """Children in other sessions than a process of one thread is itself; none where the kernel does not say."""
    found = set()
    with contextlib.suppress(OSError):
        own = os.getsid(server)
        for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(child)) != own:
                    found.add(int(child))
    return found
