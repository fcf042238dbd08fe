"""A request to stop: within seconds, with a checkpoint, and the next start ends as an undisturbed run does."""

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.executors.executor import Options, make
from bench.executors.isolate import GRACE_S
from bench.experiment.config import Experiment
from bench.experiment.plan import plan
from bench.measure.cpu_load import cores
from bench.record.results import Results
from tests.bench.executors.made import plugin, until

COMMAND = [
    sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "backprop", "--net", "mlp",
    "--seeds", "2", "--epochs", "100", "--jobs", "2", "--quiet",
]  # fmt: skip
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]
PROMISED_S = 5.0
LEEWAY_S = 5.0  # for this machine's other work, and for the table and report that follow

HANGS = "signal.signal(signal.SIGTERM, signal.SIG_IGN); open('reached', 'w').close(); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_ends_as_an_undisturbed_one(tmp_path: Path, number: signal.Signals) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = _start(broken)
    until(lambda: len(list(broken.glob("results/*/*/curve.csv"))) == 2)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < PROMISED_S + LEEWAY_S
    stopped = Results(broken / "results", columns=()).runs
    assert set(stopped.status) == {"interrupted"}
    assert len(list(broken.glob("results/*/*/checkpoint.pt"))) == 2
    same: dict[str, Any] = dict(methods=["backprop"], net="mlp", seeds=2, epochs=100, jobs=2, quiet=True)
    found, expected = (bench.run(results=of / "results", **same).runs for of in (broken, whole))
    assert set(found.status) == {"ok"}
    assert found[NUMBERS].equals(expected[NUMBERS])


def test_a_run_that_does_not_heed_is_ended_in_time(tmp_path: Path) -> None:
    process = _start_hanging(tmp_path)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < PROMISED_S + LEEWAY_S
    assert set(Results(tmp_path / "results", columns=()).runs.status) == {"interrupted"}


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    process = _start_hanging(tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < GRACE_S - 1  # no longer than the first would have given it
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")
def test_a_preempted_job_is_queued_again_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """By the signal that a cluster sends before it takes a node away. In as many threads: their number rounds sums."""
    catalog = Catalog()
    asked = Experiment.model_validate({"methods": ["backprop"], "net": "mlp", "epochs": 100, "seeds": 1})
    runs = plan(asked, catalog, device="cpu", datasets={"digits": load(catalog.dataset("digits"))})
    sent: list[int] = []

    def preempt() -> None:
        until(lambda: bool(list(tmp_path.glob("slurm/*/*/curve.csv"))))
        for child in psutil.Process().children(recursive=True):
            if "submitit.core._submit" in child.cmdline():
                child.send_signal(signal.SIGUSR2)
                sent.append(child.pid)

    threading.Thread(target=preempt).start()
    tables = []
    for name, settings in (("slurm", {"cluster": "local", "cpus": len(cores())}), ("local", {})):
        options = Options(tmp_path / name, "exp", "cpu")
        by: Any = make(catalog, name, settings)
        (summary,) = by.run_all(runs, options, lambda *_: None, threading.Event())
        assert summary["status"] == "ok"
        tables.append(Results(tmp_path / name, columns=catalog.columns()).runs[NUMBERS])
    assert len(sent) == 1
    assert "Requeued" in "".join(path.read_text() for path in tmp_path.glob("slurm/exp/.slurm/*/*_log.*"))
    assert tables[0].equals(tables[1])


def _start_hanging(folder: Path) -> "subprocess.Popen[bytes]":
    process = _start(folder, "--plugin", plugin(folder, HANGS, "hangs"), "--methods", "hangs", "--seeds", "1")
    until((folder / "reached").exists)
    return process


def _start(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*COMMAND, *options], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
