"""The same plan and the same store behind every executor; what a stranger's needs; parts of a plan."""

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import ConfigError, StoreError
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.executors import ray as of_ray
from bench.executors import slurm as of_slurm
from bench.executors.attempt import Terms
from bench.executors.executor import Options, device_there, make
from bench.executors.local import share
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, check, plan
from bench.experiment.shard import Shard
from bench.measure.cpu_load import cores
from bench.record.folder import RunFolder
from bench.record.merge import merge
from bench.record.results import Results
from bench.runner.events import Ended, Event, Kept, Started

NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]
RAY = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
SLURM = pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")


def planned(**changes: Any) -> list[Run]:
    small = {"methods": ["backprop", "drtp"], "net": "mlp", "epochs": 1, "seeds": 2}
    asked = Experiment.model_validate(small | changes)
    catalog = Catalog()
    check(asked, catalog)
    return plan(asked, catalog, device="cpu", datasets={"digits": load(catalog.dataset("digits"))})


def worked(
    root: Path, name: str, runs: list[Run], *, jobs: int | None = None, terms: Terms | None = None, **settings: Any
) -> tuple[list[dict[str, Any] | None], list[tuple[str, type[Event]]]]:
    heard: list[tuple[str, type[Event]]] = []
    options = Options(root, "exp", "cpu", jobs, terms=terms or Terms())
    by = make(Catalog(), name, settings)
    found = by.run_all(
        runs, options, lambda run, event: heard.append((run.spec.run_id, type(event))), threading.Event()
    )
    return found, heard


def table(root: Path) -> Any:
    return Results(root, columns=Catalog().columns()).runs[NUMBERS]


# --- parts of a plan


@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 12])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_complete_and_even(length: int, count: int) -> None:
    parts = [Shard(number, count).of(range(length)) for number in range(1, count + 1)]
    assert [item for part in parts for item in part] == list(range(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_has_whole_seeds_where_their_number_allows_it() -> None:
    runs = planned()
    for number in (1, 2):
        of_shard = Shard(number, 2).of(runs)
        assert {run.spec.seed for run in of_shard} == {number - 1}
        assert {run.spec.method for run in of_shard} == {"backprop", "drtp"}


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write i/n"):
        Shard.parse(text)


def test_the_folders_of_shards_join_to_the_whole(tmp_path: Path) -> None:
    runs = planned()
    worked(tmp_path / "whole", "local", runs)
    for number in (1, 2):
        worked(tmp_path / str(number), "local", Shard(number, 2).of(runs))
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "joined").runs == len(runs)
    assert table(tmp_path / "joined").equals(table(tmp_path / "whole"))


def test_a_search_is_not_for_parts(tmp_path: Path) -> None:
    config = tmp_path / "e.yaml"
    config.write_text("methods: [backprop]\ndatasets: [digits]\nnet: mlp\nepochs: 1\ntune: {trials: 2}\n")
    done = _bench(tmp_path, "run", "--config", str(config), "--shard", "1/2")
    assert (done.returncode, "--shard: a search is not for parts" in done.stderr) == (2, True)


# --- slots of this machine


@pytest.mark.parametrize(("n", "jobs", "each"), [(8, 2, 4), (5, 2, 2), (2, 2, 1), (4, 1, 4), (2, 3, 0)])
def test_slots_share_the_cores_out(n: int, jobs: int, each: int) -> None:
    own = [share(list(range(n)), slot, jobs) for slot in range(jobs)]
    assert [len(of) for of in own] == [each] * jobs
    assert len({core for of in own for core in of}) == each * jobs


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_slot_keeps_to_its_cores(tmp_path: Path) -> None:
    """Where two runs at a time are free to wander, each measures the other."""
    plugin = tmp_path / "seen.py"
    plugin.write_text(SEEN)
    asked = Experiment.model_validate({"methods": ["seen"], "net": "mlp", "epochs": 1, "seeds": 4})
    catalog = Catalog([plugin])
    runs = plan(asked, catalog, device="cpu", datasets={"digits": load(catalog.dataset("digits"))})
    worked(tmp_path / "r", "local", runs, jobs=2)
    folders = [RunFolder(tmp_path / "r", "exp", run.spec.run_id) for run in runs]
    seen = {folder.stderr.read_text().split()[0] for folder in folders}
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    assert seen <= {",".join(map(str, cores[:half])), ",".join(map(str, cores[half : 2 * half]))}


SEEN = """
import os, sys
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Seen(Method):
    claims = Claims(reverse_mode="none")
    info = MethodInfo(name="seen", title="Seen", family="toy", paper="", claims=claims, nets=("mlp",))

    def __init__(self, task, config, *, device, seeds):
        self.steps = torch.zeros(())

    def train_step(self, batch, progress):
        print(",".join(map(str, sorted(os.sched_getaffinity(0)))), file=sys.stderr)
        return {"loss": torch.zeros(())}

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""


# --- names, options, plugins


def test_a_stranger_s_executor_declares_options_and_is_used(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from pydantic import BaseModel, Field\n"
        "from bench import Executor, register\n"
        "from bench.executors.local import Local\n"
        "class Of(BaseModel):\n"
        "    note_to_print: str = Field('', description='what to say')\n"
        "@register\n"
        "class Mine(Local):\n"
        '    """Mine."""\n'
        "    name = 'mine'\n"
        "    Settings = Of\n"
        "    def run_all(self, *args):\n"
        "        print('by mine:', self.settings.note_to_print)\n"
        "        return super().run_all(*args)\n"
    )
    run = ["run", "--plugin", str(plugin), "--executor", "mine", "--methods", "backprop", "--net", "mlp"]
    done = _bench(tmp_path, *run, "--epochs", "1", "--seeds", "1", "--note-to-print", "hello")
    assert done.returncode == 0, done.stderr
    assert "by mine: hello" in done.stdout
    assert "--note-to-print" in _bench(tmp_path, *run, "--help").stdout
    refused = _bench(tmp_path, *run, "--note-to-print", "x", "--other", "1")
    assert (refused.returncode, "No such option: --other" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--executor", "rey"], "unknown executor 'rey'; did you mean ray?"),
        (["--executor", "slurm", "--cpus", "none"], "settings of executor slurm: cpus='none' is refused"),
        (["--partition", "x"], "No such option: --partition"),
        pytest.param(["--executor", "slurm", "--device", "cuda"], "--device cuda needs --gpus above 0", marks=SLURM),
        pytest.param(["--executor", "ray", "--device", "cuda:1"], "the scheduler chooses the GPU", marks=RAY),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = _bench(tmp_path, "run", "--methods", "backprop", *arguments)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("module", "name"), [(of_ray, "ray"), (of_slurm, "slurm")])
def test_a_missing_package_is_named_with_the_command(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"pip install 'backprop-free-bench\[{name}\]'"):
        make(Catalog(), name, {})


def test_executors_are_listed_without_their_packages() -> None:
    code = "import sys; from bench.cli.main import app; app(['list', 'executors'], standalone_mode=False); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'submitit')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["name", "local", "ray", "slurm"]


def test_where_the_scheduler_gives_gpus_runs_are_on_them() -> None:
    assert [device_there("auto", gpus) for gpus in (0, 0.5, 1)] == ["cpu", "cuda", "cuda"]


# --- records that travel


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", "..", ".lock", ""])
def test_nothing_that_comes_from_a_node_leaves_the_run_s_folder(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "r", "exp", "run")
    folder.create({}, {})
    with pytest.raises(StoreError, match="is no name for a file of a record"):
        folder.replace({"curve.csv": b"", name: b"!"})
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["env.json", "spec.json"]


def test_a_record_goes_there_and_back_whole(tmp_path: Path) -> None:
    """With what an attempt has removed, as a checkpoint at the end."""
    there, back = RunFolder(tmp_path / "a", "exp", "run"), RunFolder(tmp_path / "b", "exp", "run")
    for folder in (there, back):
        folder.create({"x": folder is there}, {})
    (back.path / "checkpoint.pt").write_bytes(b"old")
    (back.path / ".lock").touch()
    there.finish({"status": "ok"})
    back.replace(there.files())
    assert back.files() == there.files()
    assert sorted(there.files()) == ["env.json", "spec.json", "summary.json"]
    assert (back.path / ".lock").exists()


# --- the same table by all


def _same_by(root: Path, name: str, **settings: Any) -> None:
    runs = planned()
    worked(root / "local", "local", runs, jobs=len(cores()))  # a thread each, as elsewhere: their number rounds sums
    found, heard = worked(root / name, name, runs, **settings)
    assert [summary and summary["status"] for summary in found] == ["ok"] * len(runs)
    assert table(root / name).equals(table(root / "local"))
    for run in runs:
        of_run = [kind for run_id, kind in heard if run_id == run.spec.run_id]
        assert (of_run[0], of_run[-1], of_run.count(Ended)) == (Started, Ended, 1)
    _, again = worked(root / name, name, runs, **settings)
    assert again == [(run.spec.run_id, Kept) for run in runs]


@SLURM
def test_slurm_gives_the_same_table(tmp_path: Path) -> None:
    _same_by(tmp_path, "slurm", cluster="local")


def _bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from bench.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
