"""Faults around a whole command: one line says what it was and the mend, and the same command ends as without it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.catalog.catalog import Catalog
from bench.record.results import Results

BENCH = [sys.executable, "-c", "from bench.cli.main import main; main()"]
RUN = ["run", "--methods", "backprop,drtp", "--net", "mlp", "--seeds", "1", "--epochs", "2", "--jobs", "2"]
NUMBERS = ["run_id", "status", "test_acc", "val_acc", "train_loss", "steps"]

PLUGIN = """
import os, shutil, sys
from pathlib import Path
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Bad(Method):
    info = MethodInfo(name="bad", title="B", family="toy", paper="", claims=Claims("none"), nets=("mlp",))

    def __init__(self, task, config, *, device, seeds):
        self.kept = []

    def train_step(self, batch, progress):
        {act}
        return {{"loss": torch.zeros(())}}

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""


def bench(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([*BENCH, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def table(root: Path) -> "Results":
    return Results(root, columns=Catalog().columns())


def complaint(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that met with a fault says: never a traceback."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode in (1, 2), said
    return said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert bench(folder, *RUN).returncode == 0
    return folder


def same(found: Path, expected: Path) -> None:
    """The same rows, each once, to the last digit."""
    a, b = (table(root / "results").runs for root in (found, expected))
    assert a[NUMBERS].equals(b[NUMBERS])


@contextmanager
def small_disk(where: Path, kib: int) -> Iterator[None]:
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", where], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_a_full_disk_is_named_wherever_it_fills_and_nothing_is_lost(tmp_path: Path, undisturbed: Path) -> None:
    """From the plan over records to the report: the disk has room for a little more each time."""
    disk = tmp_path / "disk"
    with small_disk(disk, 4096):
        filler = disk / "filler"
        met = set()
        for free in (0, 12, 40, 120):
            filler.write_bytes(b"")
            used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*") if path.is_file())
            folders = 8 * 1024  # what further folders may take
            filler.write_bytes(bytes(4096 * 1024 - used - folders - free * 1024))
            said = complaint(bench(disk, *RUN))
            assert "the disk is full; free some space and run the same command again" in said
            records = Results(disk / "results", columns=(), lenient=True)
            assert set(records.runs.status if len(records.runs) else ()) <= {"ok", "interrupted"}
            met.add(len(list(disk.glob("results/*/*/summary.json"))))
        assert len(met) > 1  # both before and after the first records
        filler.unlink()
        done = bench(disk, *RUN)
        assert done.returncode == 0, done.stdout + done.stderr
        same(disk, undisturbed)
        assert list(disk.rglob(".*.tmp")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, undisturbed: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 65536):
        shutil.copytree(undisturbed / "results", disk / "results")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        said = complaint(bench(disk, *RUN))
        assert f"cannot write {Path('results')}" in said
        assert "Read-only file system" in said
        out = tmp_path / "report"
        assert bench(disk, "report", "results", "--out", str(out)).returncode == 0  # to read is enough
        assert (out / "report.md").exists()
        same(disk, undisturbed)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path) -> None:
    """Between two runs by a day, and during a third by an hour."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "true, began = time.time, time.monotonic()\n"
        "back = float(os.environ.get('SET_BACK', 0))\n"
        "time.time = lambda: true() - back - (3600 if time.monotonic() - began > 4 else 0)\n"
    )
    folder, path = tmp_path / "work", str(tmp_path)
    rows: list[str] = []
    for seeds, back in ((1, 0), (2, 86400), (3, 0)):
        command = [*RUN[:-5], str(seeds), *RUN[-4:]]
        done = bench(folder, *command, PYTHONPATH=path, SET_BACK=str(back))
        assert done.returncode == 0, done.stderr
        runs = table(folder / "results").runs
        assert set(runs.status) == {"ok"}
        assert len(runs) == 2 * seeds
        assert set(rows) <= set(runs.run_id)
        rows = list(runs.run_id)
    assert (runs.train_s > 0).all()
    assert bench(folder, "status", "results").returncode == 0
    for record in folder.glob("results/*/*/summary.json"):
        assert '"wall_s": -' not in record.read_text()


def test_data_that_was_cut_short_between_two_runs_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, 6, 6), dtype=np.uint8), np.arange(200) % 4
    data = tmp_path / "mine.npz"
    np.savez(data, x=x, y=y)
    run = ["run", "--methods", "backprop", "--net", "mlp", "--epochs", "1", "--datasets", f"npz:{data}", "--seeds"]
    assert bench(tmp_path, *run, "1").returncode == 0
    before = table(tmp_path / "results").runs
    data.write_bytes(data.read_bytes()[:-500])
    done = bench(tmp_path, *run, "2")
    said = complaint(done)
    assert done.returncode == 2
    assert str(data) in said
    assert table(tmp_path / "results").runs[NUMBERS].equals(before[NUMBERS])


@pytest.mark.parametrize("fault", ["cut short", "another run's"])
def test_a_checkpoint_that_is_none_of_this_run_s_is_named(tmp_path: Path, fault: str) -> None:
    """The row is interrupted until the file is removed; then it is run from the start."""
    run = ["run", "--methods", "backprop", "--net", "mlp", "--seeds", "2", "--jobs", "2", "--epochs", "60"]
    process = subprocess.Popen([*BENCH, *run], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("results/*/*/curve.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    one, other = sorted(tmp_path.glob("results/*/*/checkpoint.pt"))
    whole = other.read_bytes()
    one.write_bytes(whole[: len(whole) // 2] if fault == "cut short" else whole)
    said = complaint(bench(tmp_path, *run))
    assert "checkpoint.pt is " + ("corrupt" if fault == "cut short" else "another run's") in said.replace("\n", "")
    assert sorted(table(tmp_path / "results").runs.status) == ["interrupted", "ok"]
    one.unlink()
    assert bench(tmp_path, *run).returncode == 0
    assert sorted(table(tmp_path / "results").runs.status) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        ("[shutil.rmtree(of) for of in Path('results').glob('*')]", "crashed", "its records were deleted while it ran"),
        ("train = self.train_step; train(batch, progress)", "crashed", "RecursionError"),
    ],
)
def test_what_a_method_does_to_itself_is_told_and_the_sweep_goes_on(
    tmp_path: Path, act: str, status: str, reason: str
) -> None:
    (tmp_path / "bad.py").write_text(PLUGIN.format(act=act))
    run = ["run", "--plugin", "bad.py", "--methods", "bad,backprop", "--net", "mlp", "--seeds", "1", "--epochs", "1"]
    said = complaint(bench(tmp_path, *run))
    runs = table(tmp_path / "results").runs.set_index("method")
    assert runs.status.to_dict() == {"bad": status, "backprop": "ok"}
    assert reason in runs.reason["bad"]
    assert reason in said
    assert (tmp_path / "reports/default/report.md").exists()


def test_a_method_that_leaks_until_it_is_killed_is_out_of_memory(tmp_path: Path) -> None:
    """By the kernel, in a control group with too little memory."""
    group = Path("/sys/fs/cgroup/memory/bench-leak")
    limit = "memory.limit_in_bytes"
    if not group.parent.exists():
        group, limit = Path("/sys/fs/cgroup/bench-leak"), "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(1500 * 2**20))
    except OSError:
        pytest.skip("needs the right to make a control group of limited memory")
    (tmp_path / "bad.py").write_text(PLUGIN.format(act="self.kept.append(torch.ones(2**24))"))
    run = ["run", "--plugin", "bad.py", "--methods", "bad,backprop", "--net", "mlp", "--seeds", "1", "--epochs", "1000"]
    run += ["--set", "backprop.lr=1e-3", "--steps", "200"]
    inside = f"echo $$ > {group}/cgroup.procs && exec " + " ".join(f"'{word}'" for word in [*BENCH, *run])
    try:
        done = subprocess.run(["sh", "-c", inside], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        said = complaint(done)
    finally:
        deadline = time.monotonic() + 20
        while group.exists() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.2)
    runs = table(tmp_path / "results").runs.set_index("method")
    assert runs.status.to_dict() == {"bad": "oom", "backprop": "ok"}
    assert "killed by the system for want of memory" in said
