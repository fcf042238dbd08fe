"""Whole commands under what a machine may do to them: one clear line, true statuses, and the same command goes on."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from bench.record import clock
from bench.record.results import Results
from tests.bench.executors.made import plugin, until

pytestmark = pytest.mark.slow  # whole commands, one after another

EPOCHS = 12  # of 10 steps: more than a trial has
SIZE = 4_000_000  # bytes of the disk that is full, and has room for a checkpoint once it is not


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands beside those of other tests."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def bench(folder: Path, *options: str, methods: str = "backprop", stdout: Any = subprocess.PIPE) -> Any:
    command = _command(folder, methods, *options)
    return subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=240)


def stopped(folder: Path, *options: str, methods: str, reached: Path) -> tuple[int, str]:
    """Exit code and output of a command that is asked to stop once a file is there."""
    command = _command(folder, methods, *options)
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        until(reached.exists)
        process.terminate()
        told, _ = process.communicate(timeout=60)
    return process.returncode, told


def _command(folder: Path, methods: str, *options: str) -> list[str]:
    code = "from bench.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", "--methods", methods, "--net", "mlp", "--seeds", "1", *options]
    return [*command, "--epochs", str(EPOCHS), "--batch-size", "128", "--results", str(folder / "results")]


def statuses(folder: Path) -> dict[str, str]:
    runs = Results(folder / "results", columns=()).runs
    return dict(zip(runs["method"], runs["status"], strict=True))


def is_one_line(done: Any, *words: str) -> bool:
    """Whether bad input was told in one line, with these words in it."""
    told = done.stderr.strip().splitlines()
    return done.returncode == 2 and len(told) == 1 and all(word in told[0] for word in words)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted at `results`."""
    where = tmp_path / "results"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_is_named_and_with_room_the_sweep_goes_on(tmp_path: Path, disk: Path) -> None:
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(SIZE // 4096 * 4096))
    assert is_one_line(bench(tmp_path), "cannot write", "the disk is full; free some space")
    os.truncate(filler, SIZE // 4096 * 4096 - 3 * 4096)  # room for a folder and a plan, and for no whole record
    done = bench(tmp_path)
    assert done.returncode in (1, 2)
    assert "disk is full" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    filler.unlink()
    done = bench(tmp_path)
    assert done.returncode == 0, done.stdout
    assert statuses(tmp_path) == {"backprop": "ok"}
    assert list(disk.rglob(".*.tmp")) == []


def test_a_read_only_results_folder_is_named_and_left_as_it_is(tmp_path: Path, disk: Path) -> None:
    assert bench(tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert is_one_line(bench(tmp_path), "cannot write", "Read-only file system")
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before


def test_output_to_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert is_one_line(bench(tmp_path, stdout=full), "the disk is full")
    assert bench(tmp_path).returncode == 0


def test_a_run_whose_folder_is_removed_is_interrupted_and_done_again(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    act = f"os.path.exists({str(mended)!r}) or [shutil.rmtree(p) for p in glob.glob('results/*/*/')]"
    options = ("--plugin", plugin(tmp_path, act))
    done = bench(tmp_path, *options, methods="bad,backprop")
    assert (done.returncode, statuses(tmp_path)["bad"]) == (1, "interrupted")
    assert "its folder was removed while it ran" in done.stdout
    mended.touch()
    assert bench(tmp_path, *options, methods="bad,backprop").returncode == 0
    assert statuses(tmp_path) == {"bad": "ok", "backprop": "ok"}


@pytest.mark.parametrize(
    ("act", "status", "words"),
    [
        ("self.act()", "crashed", "RecursionError"),
        ("os.fork()", "ok", ""),
        ("os.fork() or os.execvp('sleep', ['sleep', '987'])", "ok", ""),
        ("os.fork() or (os.setsid(), os.fork(), os.execvp('sleep', ['sleep', '987']))", "ok", ""),
        ("os.abort() if os.fork() else (os.setsid(), os.execvp('sleep', ['sleep', '987']))", "crashed", "SIGABRT"),
    ],
    ids=["recursion", "forks that go on as the run", "children", "children in a session", "children of a crash"],
)
def test_what_a_method_does_stays_with_it(tmp_path: Path, act: str, status: str, words: str) -> None:
    """The others run, each row is there once, and no process is left."""
    if "fork" in act:
        act = f"self.steps == 30 and ({act})"
    done = bench(tmp_path, "--plugin", plugin(tmp_path, act), methods="bad,backprop")
    assert "Traceback" not in done.stderr
    assert statuses(tmp_path) == {"bad": status, "backprop": "ok"}
    assert words in done.stdout
    assert _at_work(tmp_path) == []


def test_what_a_method_has_started_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    """Also in a session of its own, to which no signal to the run's group comes."""
    reached = tmp_path / "reached"
    child = "(os.setsid(), os.fork(), os.execvp('sleep', ['sleep', '987']))"
    act = f"os.fork() or {child}; open({str(reached)!r}, 'w').close(); time.sleep(600)"
    command = _command(tmp_path, "bad", "--plugin", plugin(tmp_path, act))
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        until(reached.exists)
        until(lambda: "sleep" in _at_work(tmp_path))
        process.kill()
    until(lambda: not _at_work(tmp_path))


def _at_work(folder: Path) -> list[str]:
    """Names of processes in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append(process.name())
        except (psutil.Error, OSError):
            continue
    return found


def _slow(reached: Path, hurry: Path, first: str = "None") -> str:
    """A step that says where it has come to and takes a second, until it is to hurry. first: what it does before."""
    return f"os.path.exists({str(hurry)!r}) or ({first}, open({str(reached)!r}, 'w').close(), time.sleep(1))"


@pytest.mark.parametrize("of", ["truncated", "another run's"])
def test_a_checkpoint_that_is_not_the_run_s_is_named_and_nothing_else_is_lost(tmp_path: Path, of: str) -> None:
    reached, hurry = tmp_path / "reached", tmp_path / "hurry"
    options = ("--plugin", plugin(tmp_path, _slow(reached, hurry)))
    assert stopped(tmp_path, *options, methods="bad", reached=reached)[0] == 130
    (checkpoint,) = tmp_path.glob("results/*/*/checkpoint.pt")
    whole = checkpoint.read_bytes()
    hurry.touch()
    if of == "truncated":
        checkpoint.write_bytes(whole[: len(whole) // 2])
    else:
        torch.save({**torch.load(checkpoint, weights_only=True), "run_id": "other"}, checkpoint)
    done = bench(tmp_path, *options, methods="bad")
    assert (done.returncode, statuses(tmp_path)) == (1, {"bad": "interrupted"})
    assert f"{checkpoint.name} is" in done.stdout
    assert "remove it and run again" in done.stdout
    checkpoint.unlink()
    assert bench(tmp_path, *options, methods="bad").returncode == 0


def test_a_checkpoint_that_finds_no_room_is_named_and_the_one_before_it_stays(tmp_path: Path, disk: Path) -> None:
    reached, grow, hurry = tmp_path / "reached", tmp_path / "grow", tmp_path / "hurry"
    grown = f"os.path.exists({str(grow)!r}) and setattr(self, 'more', torch.zeros({SIZE} // 4))"
    options = ("--plugin", plugin(tmp_path, _slow(reached, hurry, grown)))
    assert stopped(tmp_path, *options, methods="bad", reached=reached)[0] == 130
    (checkpoint,) = disk.glob("*/*/checkpoint.pt")
    before = checkpoint.read_bytes()
    reached.unlink()
    grow.touch()
    code, told = stopped(tmp_path, *options, methods="bad", reached=reached)
    assert (code, statuses(tmp_path)) == (130, {"bad": "interrupted"})
    assert "checkpoint.pt: the disk is full; free some space" in told
    assert checkpoint.read_bytes() == before
    hurry.touch()
    assert bench(tmp_path, *options, methods="bad").returncode == 0
    assert list(disk.rglob(".*.tmp")) == []


def test_data_that_change_between_two_runs_fail_no_method(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "mine.npz"
    np.savez(data, x=rng.integers(0, 256, (3000, 4, 4), dtype=np.uint8), y=np.arange(3000) % 10)
    whole = data.read_bytes()
    options = ("--datasets", f"npz:{data}", "--plugin", plugin(tmp_path, f"os.truncate({str(data)!r}, 1000)"))
    done = bench(tmp_path, *options, methods="bad,backprop")
    assert statuses(tmp_path) == {"bad": "ok", "backprop": "interrupted"}
    assert "not a readable npz file" in done.stdout
    assert is_one_line(bench(tmp_path, *options, methods="bad,backprop"), "not a readable npz file")
    data.write_bytes(whole)
    assert bench(tmp_path, *options, methods="bad,backprop").returncode == 0


def test_records_keep_their_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1000.0, 500.0, 500.0, 2000.0])
    monkeypatch.setattr(clock.time, "time", lambda: next(now))
    monkeypatch.setattr(clock, "_last", 0.0)
    moments = [clock.moment(), clock.moment(), clock.moment(after=1500.0), clock.moment()]
    assert moments == sorted(set(moments))
    assert (moments[0], moments[3]) == (1000.0, 2000.0)


def test_a_clock_that_is_set_back_changes_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a day between two commands, and by an hour while a run is at work, as every process sees it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "true, began = time.time, time.monotonic()\n"
        "back = float(os.environ.get('SET_BACK', 0))\n"
        "time.time = lambda: true() - back - (3600 if time.monotonic() - began > 4 else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended: list[float] = []
    for seeds, back in ((1, 0), (2, 86400), (3, 0)):
        monkeypatch.setenv("SET_BACK", str(back))
        done = bench(tmp_path, "--seeds", str(seeds))
        assert done.returncode == 0, done.stderr
        records = [json.loads(path.read_bytes()) for path in tmp_path.glob("results/*/*/summary.json")]
        assert len(records) == seeds
        assert all(record["status"] == "ok" and record["wall_s"] > 0 for record in records)
        ended.append(max(record["finished_at"] for record in records))
    assert ended == sorted(set(ended))


def test_a_method_that_leaks_until_it_is_killed_is_out_of_memory(tmp_path: Path) -> None:
    """By the kernel, in a control group with too little memory."""
    group, limit = Path("/sys/fs/cgroup/memory/bench-leak"), "memory.limit_in_bytes"
    if not group.parent.exists():
        group, limit = Path("/sys/fs/cgroup/bench-leak"), "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(1500 * 2**20))
    except OSError:
        pytest.skip("needs the right to make a control group of limited memory")
    leak = plugin(tmp_path, "kept = vars(torch).setdefault('kept', []); kept.append(torch.ones(2**24))")
    run = ["run", "--plugin", leak, "--methods", "bad,backprop", "--net", "mlp", "--seeds", "1", "--epochs", "200"]
    code = "from bench.cli.main import main; main()"
    inside = ["sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(group), sys.executable, "-c", code, *run]
    try:
        done = subprocess.run(inside, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    finally:
        deadline = time.monotonic() + 20
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                group.rmdir()
            time.sleep(0.2)
    assert statuses(tmp_path) == {"bad": "oom", "backprop": "ok"}
    assert "killed by the system for want of memory" in done.stdout
