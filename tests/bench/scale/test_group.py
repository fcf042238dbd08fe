"""What happens to a group of workers when one of them does not come to its end."""

import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest

from bench.api.errors import BenchError
from bench.scale.group import run_group
from tests.bench.scale.made import planned, work_of


def waits(work: Any, link: Any) -> dict[str, Any]:
    """The last worker never comes to the barrier at which the others wait."""
    if link.is_last:
        time.sleep(600)
    link.barrier()
    return {}


def breaks(work: Any, link: Any) -> dict[str, Any]:
    if link.rank == 1:
        raise ValueError("no such\nthing")
    link.barrier()
    return {}


def comes_late(work: Any, link: Any) -> dict[str, Any]:
    if link.rank == 0:
        time.sleep(1.0)
    link.barrier()
    return {"blocked_s": link.blocked_s}


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_a_killed_worker_is_one_line_and_leaves_no_process() -> None:
    pids: list[int] = []

    def kill_one(of_group: list[int]) -> None:
        pids.extend(of_group)
        threading.Timer(1.0, os.kill, (of_group[1], signal.SIGKILL)).start()

    with pytest.raises(BenchError) as told:
        run_group(waits, work_of(planned("noprop-dt"), "blocks", 2), 2, began=kill_one)
    assert str(told.value) == "worker 1 of 2 was killed by SIGKILL; the others were ended"
    assert len(pids) == 2
    assert gone(pids)


def test_waiting_is_what_the_one_does_that_comes_early() -> None:
    results = run_group(comes_late, work_of(planned("noprop-dt"), "blocks", 2), 2)
    assert results is not None
    late, early = (result["blocked_s"] for result in results)
    assert early > 0.5
    assert late < 0.5


def test_an_error_in_a_worker_is_one_line_and_leaves_no_process() -> None:
    pids: list[int] = []
    with pytest.raises(BenchError) as told:
        run_group(breaks, work_of(planned("noprop-dt"), "blocks", 2), 2, began=pids.extend)
    assert str(told.value) == "worker 1 of 2 failed: ValueError: no such thing; the others were ended"
    assert gone(pids)


def test_a_group_that_is_to_stop_stops() -> None:
    pids: list[int] = []
    stop = threading.Event()

    def soon(of_group: list[int]) -> None:
        pids.extend(of_group)
        threading.Timer(0.5, stop.set).start()

    assert run_group(waits, work_of(planned("noprop-dt"), "blocks", 2), 2, stop, soon) is None
    assert gone(pids)
