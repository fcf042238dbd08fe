"""Runs on a Ray cluster of this machine's: the same table as without it, and nothing open to others."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.data import load
from bench.executors import ray as of_ray
from bench.executors import ray_cluster
from bench.executors.executor import Options, make
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, plan
from bench.record.results import Results
from bench.runner.events import Event

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray"),
    # Ray's own: what it will do about GPUs one day, and files and children that it leaves to the end of the process
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]


def planned(**changes: Any) -> list[Run]:
    small = {"methods": ["backprop", "drtp"], "net": "mlp", "epochs": 1, "seeds": 2}
    catalog = Catalog()
    digits = {"digits": load(catalog.dataset("digits"))}
    return plan(Experiment.model_validate(small | changes), catalog, device="cpu", datasets=digits)


def worked(root: Path, name: str, runs: list[Run], **settings: Any) -> list[dict[str, Any] | None]:
    def listen(run: Run, event: Event) -> None:
        pass

    options = Options(root, "exp", "cpu")
    return make(Catalog(), name, settings).run_all(runs, options, listen, threading.Event())


def table(root: Path) -> Any:
    return Results(root, columns=Catalog().columns()).runs[NUMBERS]


@pytest.fixture
def two_nodes() -> Iterator[str]:
    ray_cluster.keep_to_loopback()
    from ray.cluster_utils import Cluster

    args = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    yield cluster.address
    cluster.shutdown()


@pytest.mark.parametrize("shared", [True, False])
def test_two_nodes_give_the_table_of_one_machine(
    tmp_path: Path, two_nodes: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they see the results folder, and where records travel."""
    runs = planned()
    worked(tmp_path / "local", "local", runs)
    if shared:
        seen: list[bool] = []
        found = of_ray._Sweep._is_shared
        monkeypatch.setattr(of_ray._Sweep, "_is_shared", lambda sweep: seen.append(found(sweep)) or seen[-1])
    else:
        monkeypatch.setattr(of_ray._Sweep, "_is_shared", lambda _: False)
    summaries = worked(tmp_path / "ray", "ray", runs, address=two_nodes)
    assert [summary and summary["status"] for summary in summaries] == ["ok"] * 4
    assert table(tmp_path / "ray").equals(table(tmp_path / "local"))
    assert not shared or seen == [True]
    assert worked(tmp_path / "ray", "ray", runs, address=two_nodes) == summaries


def test_without_an_address_nothing_listens_to_other_machines(tmp_path: Path) -> None:
    heard: set[str] = set()

    def look() -> None:
        for process in psutil.Process().children(recursive=True):
            for connection in process.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    heard.add(connection.laddr.ip.removeprefix("::ffff:"))

    _meanwhile(look, planned(epochs=20), tmp_path)
    assert heard == {socket.gethostbyname("localhost")}
    assert _left_over() == []


def _meanwhile(act: Callable[[], None], runs: list[Run], root: Path) -> list[dict[str, Any] | None]:
    """Work on a Ray of its own, and do something once a run is at work."""

    def wait_and_act() -> None:
        deadline = time.monotonic() + 120
        while not list(root.glob("*/*/curve.csv")) and time.monotonic() < deadline:
            time.sleep(0.1)
        act()

    acting = threading.Thread(target=wait_and_act)
    acting.start()
    found = worked(root, "ray", runs)
    acting.join()
    return found


def _left_over() -> list[str]:
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    return [p.name() for p in alive if p.status() != psutil.STATUS_ZOMBIE and "ray" in " ".join(p.cmdline()[:1])]
