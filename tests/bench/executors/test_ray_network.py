"""The network between two Ray nodes cut under a sweep: the other node's runs are done here, nothing is done twice."""

import os
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
from tests.bench.executors.made import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")]

BIN = Path(sys.executable).parent
BENCH = [sys.executable, "-c", "from bench.cli.main import main; main()"]
RUN = ["run", "--methods", "backprop,drtp", "--net", "mlp", "--seeds", "2", "--epochs", "60"]
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]
HERE, THERE = "bench-here", "bench-there"
ADDRESS = {HERE: "10.77.0.1", THERE: "10.77.0.2"}
LINK = {HERE: "bench-h", THERE: "bench-t"}
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    # how soon a node counts as lost, and ends when it has lost the head: seconds, where Ray's own are minutes
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@pytest.fixture
def network() -> Iterator[None]:
    """Two namespaces with a link between them."""
    try:
        for name in (HERE, THERE):
            ip("netns", "del", name)  # a test that was killed may have left them
        there = all(ip("netns", "add", name) for name in (HERE, THERE))
    except FileNotFoundError:
        pytest.skip("needs ip (Debian: iproute2)")
    if not there:
        pytest.skip("needs the right to make network namespaces")
    try:
        link = ("veth", "peer", "name", LINK[THERE], "netns", THERE)
        assert ip("link", "add", LINK[HERE], "netns", HERE, "type", *link)
        for name in (HERE, THERE):
            assert ip("-n", name, "addr", "add", f"{ADDRESS[name]}/24", "dev", LINK[name])
            assert all(ip("-n", name, "link", "set", what, "up") for what in (LINK[name], "lo"))
        yield
    finally:
        for name in (HERE, THERE):
            ip("netns", "del", name)


def inside(name: str, *command: str, cwd: Path) -> psutil.Popen:
    words = ["ip", "netns", "exec", name, *command]
    with (cwd / f"{name}.log").open("a") as log:
        return psutil.Popen(words, cwd=cwd, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)


def end(process: psutil.Popen) -> None:
    for one in [*process.children(recursive=True), process] if process.is_running() else []:
        try:
            one.kill()
        except psutil.Error:
            continue
    process.wait()


def test_runs_of_a_node_that_is_cut_off_are_done_elsewhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, network: None
) -> None:
    head = ADDRESS[HERE] + ":6379"
    common = ["--block", "--num-cpus=1", f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    ray = str(BIN / "ray")
    of_head = ["start", "--head", "--port=6379", f"--node-ip-address={ADDRESS[HERE]}", "--include-dashboard=false"]
    started = [inside(HERE, ray, *of_head, *common, cwd=tmp_path)]
    try:
        time.sleep(10)
        of_node = ["start", f"--address={head}", f"--node-ip-address={ADDRESS[THERE]}", "--block", "--num-cpus=1"]
        started.append(inside(THERE, ray, *of_node, cwd=tmp_path))
        time.sleep(10)
        work = tmp_path / "work"
        work.mkdir()
        command = inside(HERE, *BENCH, *RUN, "--executor", "ray", "--address", head, cwd=work)
        started.append(command)
        until(lambda: len(list(work.glob("results/*/*/curve.csv"))) >= 2, 120)  # one on each node
        assert ip("-n", THERE, "link", "set", LINK[THERE], "down")
        code = command.wait(timeout=300)
        said = (work / f"{HERE}.log").read_text()
        assert code == 0, said
        assert "Traceback" not in said
    finally:
        for process in reversed(started):
            end(process)
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run([*BENCH, *RUN, "--jobs", "2"], cwd=whole, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    found, expected = (Results(of / "results", columns=Catalog().columns()).runs for of in (work, whole))
    assert found[NUMBERS].equals(expected[NUMBERS])
