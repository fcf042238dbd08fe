"""kill -9 of the whole command at random moments, each followed by the same command: nothing lost, nothing twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.record.results import Results

COMMAND = [
    sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "noprop-dt,backprop",
    "--seeds", "2", "--epochs", "3", "--jobs", "2", "--set", "denoiser.width=4", "--set", "denoiser.hidden=16",
    "--set", "denoiser.T=3",
]  # fmt: skip
NUMBERS = ["test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "train_loss", "steps"]


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, id="2 kills"), pytest.param(10, id="10 kills", marks=pytest.mark.slow)],
)
def test_the_end_is_that_of_an_unbroken_run(tmp_path: Path, kills: int) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    began = time.monotonic()
    assert _start(whole).wait(timeout=300) == 0
    usual = time.monotonic() - began

    moments = random.Random(0)  # noqa: S311
    for _ in range(kills):
        process = _start(broken)
        time.sleep(moments.uniform(0.1, 1.0) * usual)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert _start(broken).wait(timeout=300) == 0

    _same(broken, whole)


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, id="2 kills"), pytest.param(12, id="12 kills", marks=pytest.mark.slow)],
)
def test_kills_of_the_server_that_starts_runs_fail_no_run(tmp_path: Path, kills: int) -> None:
    """The run in hand goes on, or is interrupted and goes on at the same command; none is `crashed`."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    began = time.monotonic()
    assert _start(whole).wait(timeout=300) == 0
    usual = time.monotonic() - began

    moments = random.Random(1)  # noqa: S311
    process = _start(broken)
    for _ in range(kills):
        time.sleep(moments.uniform(0.1, 0.5) * usual)
        if process.poll() is not None:
            process = _start(broken, "--fresh")
            time.sleep(moments.uniform(0.2, 0.6) * usual)
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            with contextlib.suppress(psutil.Error):
                if "forkserver" in " ".join(child.cmdline()):
                    child.kill()
    for _ in range(3):
        if process.wait(timeout=300) == 0:
            break
        statuses = set(Results(broken / "results", columns=()).runs.status)
        assert statuses <= {"ok", "interrupted"}
        process = _start(broken)
    assert process.returncode == 0
    _same(broken, whole)


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
    while not list(tmp_path.glob("results/*/*/curve.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 130
    assert set(Results(tmp_path / "results", columns=()).runs.status) == {"interrupted"}


def _start(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *options]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
