"""kill -9 of what a sweep consists of, at random moments, then the same command: nothing is lost or done twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.record.results import Results
from tests.bench.executors.made import until

pytestmark = pytest.mark.slow  # kills and waits

COMMAND = [
    sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "noprop-dt,backprop",
    "--seeds", "2", "--epochs", "3", "--jobs", "2", "--set", "denoiser.width=4", "--set", "denoiser.hidden=16",
    "--set", "denoiser.T=3",
]  # fmt: skip
NUMBERS = ["test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "train_loss", "steps"]
TARGETS = ("command", "server", "run")
GIVEN_UP = "killed by SIGKILL 3 times in a row at the same place"


@pytest.mark.parametrize(
    "kills", [pytest.param(5, id="5 kills"), pytest.param(60, id="60 kills", marks=pytest.mark.slow)]
)
def test_whatever_is_killed_the_end_is_that_of_an_unbroken_sweep(tmp_path: Path, kills: int) -> None:
    """The command, the server that starts runs, runs. A finished sweep is begun afresh for the kills that are left."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    began = time.monotonic()
    assert _start(whole).wait(timeout=300) == 0
    usual = time.monotonic() - began

    moments = random.Random(0)
    killed = Counter[str]()
    process = _start(broken)
    while killed.total() < kills:
        time.sleep(moments.uniform(0.02, 0.5) * usual)
        if process.poll() is not None:
            _true_so_far(broken)
            process = _start(broken, *(["--fresh"] if process.returncode == 0 else ["--retry", "crashed"]))
            continue
        target = min(TARGETS, key=lambda name: (killed[name], moments.random()))
        victims = list(_found(process, target))
        if not victims:
            continue
        family = psutil.Process(process.pid).children(recursive=True)
        moments.choice(victims).kill()
        killed[target] += 1
        if target == "command":
            process.wait()
            _, alive = psutil.wait_procs(family, timeout=20)
            assert [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    process.wait(timeout=300)
    for _ in range(3):
        _true_so_far(broken)
        if (process := _start(broken, "--retry", "crashed")).wait(timeout=300) == 0:
            break
    assert process.returncode == 0
    assert set(killed) == set(TARGETS)
    _same(broken, whole)


def _found(command: "subprocess.Popen[bytes]", target: str) -> Iterator[psutil.Process]:
    """Processes of one kind that belong to a sweep."""
    with contextlib.suppress(psutil.Error):
        of_command = psutil.Process(command.pid)
        servers = [p for p in of_command.children() if "forkserver" in " ".join(p.cmdline())]
        yield from {
            "command": [of_command],
            "server": servers,
            "run": [run for server in servers for run in server.children()],
        }[target]


def _true_so_far(folder: Path) -> None:
    """No kill is told as anything else; a run that met with three in one place is given up, with that reason."""
    runs = Results(folder / "results", columns=()).runs
    assert set(runs.status) <= {"ok", "interrupted", "crashed"}
    assert set(runs.reason[runs.status == "crashed"]) <= {GIVEN_UP}


def _same(broken: Path, whole: Path) -> None:
    """Every row once, with the numbers of an unbroken experiment to the last bit, and nothing left over."""
    expected, found = (Results(of / "results", columns=Catalog().columns()) for of in (whole, broken))
    runs = found.runs
    assert len(runs) == 4
    assert list(runs.run_id) == list(expected.runs.run_id)
    assert runs[NUMBERS].equals(expected.runs[NUMBERS])
    columns = ["run_id", "epoch", "step", "train_loss", "val_acc", "val_acc_noise_free"]
    assert found.curves[columns].equals(expected.curves[columns])
    litter = [p for p in (broken / "results").rglob("*") if p.suffix in (".tmp", ".pt")]
    assert litter == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_may_go_to_the_whole_process_group(tmp_path: Path, number: signal.Signals) -> None:
    """As timeout(1) and a terminal's Ctrl-C send it. What was running is interrupted, not crashed."""
    process = _start(tmp_path, "--epochs", "20000", "--seeds", "1")
    until(lambda: list(tmp_path.glob("results/*/*/curve.csv")) or process.poll() is not None)
    assert process.poll() is None
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 130
    assert set(Results(tmp_path / "results", columns=()).runs.status) == {"interrupted"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_are_saved_and_gone_within_five_seconds(tmp_path: Path, number: signal.Signals) -> None:
    """Without the report that follows."""
    process = _start(tmp_path, "--epochs", "20000")
    until(lambda: len(list(tmp_path.glob("results/*/*/curve.csv"))) == 2)
    runs = list(_found(process, "run"))
    assert len(runs) == 2
    process.send_signal(number)
    deadline = time.monotonic() + 5
    records: list[Path] = []
    while len(records) < 2 or any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in runs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        records = list(tmp_path.glob("results/*/*/summary.json"))
    assert all('"interrupted"' in path.read_text() for path in records)
    assert len(list(tmp_path.glob("results/*/*/checkpoint.pt"))) == 2
    assert process.wait(timeout=60) == 130


def _start(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *options]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
