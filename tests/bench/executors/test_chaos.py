"""kill -9 of command, run and fork server at random moments, each death followed by the same command."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.record.results import Results

COMMAND = [
    sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "backprop,drtp,sigprop",
    "--seeds", "2", "--epochs", "3", "--jobs", "2", "--net", "mlp", "--quiet",
]  # fmt: skip
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]
CURVE = ["run_id", "epoch", "step", "train_loss", "val_acc"]
KINDS = ("command", "run", "server")
KILLS_IN_ONE = 9  # of a sweep; after them it is let end, and the next one begins


@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="4 kills"), pytest.param(54, id="54 kills", marks=pytest.mark.slow)]
)
def test_whatever_is_killed_the_table_is_that_of_an_unbroken_sweep(tmp_path: Path, kills: int) -> None:
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert _start(whole).wait(timeout=300) == 0
    usual = time.monotonic() - began
    chance = random.Random(0)  # noqa: S311
    killed: Counter[str] = Counter()
    while (left := kills - killed.total()) > 0:
        broken = tmp_path / f"broken-{left}"
        _sweep(broken, min(left, KILLS_IN_ONE), usual, chance, killed)
        _same(broken, whole)
    assert killed.total() == kills
    assert all(killed[kind] >= kills // 6 for kind in KINDS), killed


def _sweep(broken: Path, kills: int, usual: float, chance: random.Random, killed: Counter[str]) -> None:
    """Kills in one sweep, as many as asked for unless it is over before; then to its end."""
    done = 0
    for _ in range(3 * kills):
        if done == kills:
            break
        kind = min(KINDS, key=lambda of: (killed[of], chance.random()))
        process = _start(broken)
        time.sleep(chance.uniform(0.2, 0.9) * usual)
        family = _family(process)
        target = next((of for of, named in family.items() if named == kind), None)
        if target is not None and target.is_running():
            with contextlib.suppress(psutil.Error):
                target.kill()
                killed[kind] += 1
                done += 1
        if kind == "command":
            process.wait(timeout=60)
        elif process.wait(timeout=300) != 0:
            assert set(Results(broken / "results", columns=()).runs.status) <= {"ok", "interrupted"}
        _, alive = psutil.wait_procs(list(family), timeout=20)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
        if process.returncode == 0:
            break
    assert _start(broken).wait(timeout=300) == 0


def _family(process: "subprocess.Popen[bytes]") -> dict[psutil.Process, str]:
    """The command's processes: itself, the fork server, and the runs below that."""
    try:
        command = psutil.Process(process.pid)
        found = {command: "command"}
        for child in command.children():
            if "forkserver" in " ".join(child.cmdline()):
                found[child] = "server"
                found |= dict.fromkeys(child.children(), "run")
        return found if process.poll() is None else {}
    except psutil.Error:
        return {}


def _same(broken: Path, whole: Path) -> None:
    """Every row once, with the numbers of an unbroken experiment to the last bit, and nothing left over."""
    expected, found = (Results(of / "results", columns=Catalog().columns()) for of in (whole, broken))
    assert len(found.runs) == 6
    assert found.runs[NUMBERS].equals(expected.runs[NUMBERS])
    assert found.curves[CURVE].equals(expected.curves[CURVE])
    assert [p for p in (broken / "results").glob("*/*/*") if p.suffix == ".pt"] == []
    assert list((broken / "results").glob("*/*/.*.tmp")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_are_saved_and_gone_within_five_seconds(tmp_path: Path, number: signal.Signals) -> None:
    """Without the report that follows."""
    process = _start(tmp_path, "--epochs", "20000")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("results/*/*/curve.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runs = [of for of, kind in _family(process).items() if kind == "run"]
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
