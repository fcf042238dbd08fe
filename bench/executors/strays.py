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
    while (strays := _in_other_sessions(_children(server), server) - runs) and time.monotonic() < deadline:
        for stray in strays:
            _kill(stray)
        time.sleep(0.005)


def end_below() -> None:
    """Kill all that has come from this process, and what comes to it from those that are killed."""
    killed = set[int]()
    while strays := _descendants(os.getpid()) - killed:
        for stray in strays:
            _kill(stray)
        killed |= strays


def _descendants(pid: int) -> set[int]:
    found, ahead = set[int](), [pid]
    while ahead:
        children = _children(ahead.pop()) - found
        found |= children
        ahead += children
    return found


def _children(pid: int) -> set[int]:
    """Of all threads of a process; none where the kernel does not say."""
    found = set[int]()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread has ended since
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _in_other_sessions(pids: Set[int], than: int) -> set[int]:
    found = set[int]()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # one of them has ended, and its parent knows
            if os.getsid(pid) != os.getsid(than):
                found.add(pid)
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
