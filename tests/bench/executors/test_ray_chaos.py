"""Ray's workers and its head killed under a sweep: true words, nothing lost, and the same command ends as without."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.record.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")]

RUN = [
    sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "backprop,drtp",
    "--net", "mlp", "--seeds", "3", "--epochs", "60",
]  # fmt: skip
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]
KILLS = 6
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that it keeps to loopback
    "RAY_AUTH_MODE": "disabled",
}


class Cluster:
    """A head with two cores, on loopback, in processes of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        self.folder, self.address = folder, f"127.0.0.1:{self.port}"
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += [f"--port={self.port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        command += [f"--temp-dir={self.folder}"]
        self.process = psutil.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.2)
        raise AssertionError("no Ray head")

    def workers(self) -> list[psutil.Process]:
        """Those that have a run in hand."""
        return [p for p in self._all() if _title(p).startswith("ray::attempt_there")]

    def kill(self) -> None:
        """The head, and what was left of it."""
        for process in self._all():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait()

    def _all(self) -> list[psutil.Process]:
        if self.process is None or not self.process.is_running():
            return []
        return [self.process, *self.process.children(recursive=True)]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("r"))
    made.start()
    yield made
    made.kill()


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    command, said, also = [*RUN, *options], subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=said, stderr=also, text=True)


def table(folder: Path) -> Results:
    return Results(folder / "results", columns=Catalog().columns())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, "--jobs", "2")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return folder


def at_work(folder: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until a run has begun to train."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("results/*/*/curve.csv")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_runs_whose_worker_is_killed_are_tried_again(tmp_path: Path, cluster: Cluster, undisturbed: Path) -> None:
    moments = random.Random(0)
    folder, killed = tmp_path / "work", 0
    process = start(folder, "--executor", "ray", "--address", cluster.address, "--retries", "10")
    at_work(folder, process)
    deadline = time.monotonic() + 200
    while killed < KILLS and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(moments.uniform(0.2, 2.0))
        if workers := cluster.workers():
            moments.choice(workers).kill()
            killed += 1
    said, _ = process.communicate(timeout=300)
    assert killed == KILLS
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert table(folder).runs[NUMBERS].equals(table(undisturbed).runs[NUMBERS])


def test_a_head_that_is_killed_is_named_and_a_new_one_continues(
    tmp_path: Path, cluster: Cluster, undisturbed: Path
) -> None:
    folder = tmp_path / "work"
    asked = ["--executor", "ray", "--address", cluster.address]
    process = start(folder, *asked)
    at_work(folder, process)
    cluster.kill()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "the Ray cluster is gone; the same command continues it" in said
    assert set(table(folder).runs.status) <= {"ok", "interrupted"}
    assert "interrupted" in set(table(folder).runs.status)

    refused = start(folder, *asked)
    said, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2, said
    assert f"no Ray cluster at {cluster.address}" in said

    cluster.start()
    process = start(folder, *asked)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert table(folder).runs[NUMBERS].equals(table(undisturbed).runs[NUMBERS])
