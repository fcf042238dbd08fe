"""The child process: every way to end gets its word, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.catalog.catalog import Catalog
from bench.data import load
from bench.executors import isolate, output
from bench.executors.attempt import KILLS, Terms
from bench.executors.executor import Options
from bench.executors.local import Local
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, check, plan
from bench.record.folder import RunFolder
from bench.record.results import Results
from bench.runner.events import Ended, Event, Started
from tests.bench.executors.made import IN_TRAINING, until

PLUGIN = (
    IN_TRAINING
    + """
import os, signal, sys, time
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Bad(Method):
    info = MethodInfo(
        name="bad", title="Bad", family="toy", paper="",
        claims=Claims(reverse_mode="none"), nets=("mlp",),
    )

    def __init__(self, task, config, *, device, seeds):
        self.steps = torch.zeros(())

    def train_step(self, batch, progress):
        self.steps += 1
        {act}
        return {{"loss": torch.zeros(())}}

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""
)


@pytest.fixture
def attempt(tmp_path: Path) -> Any:
    """Runs a method whose training step does what the text says, and gives (summary, folder)."""

    def go(act: str, *, stop: threading.Event | None = None, **terms: Any) -> tuple[dict[str, Any], RunFolder]:
        path = tmp_path / "bad.py"
        path.write_text(PLUGIN.format(act=act))
        runs = _plan(["bad"], [path])
        where = Options(tmp_path / "results", "exp", "cpu", jobs=2, terms=Terms(**terms))
        (summary,) = Local().run_all(runs, where, lambda *_: None, stop or threading.Event())
        assert summary is not None
        return summary, RunFolder(where.root, "exp", runs[0].spec.run_id)

    return go


def _plan(methods: list[str], plugins: list[Path], **changes: Any) -> list[Run]:
    asked = Experiment.model_validate({"methods": methods, "epochs": 1, **changes})
    catalog = Catalog(plugins)
    check(asked, catalog)
    return plan(asked, catalog, device="cpu", datasets={"digits": load(catalog.dataset("digits"))})


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        ("pass", "ok", None),
        ("raise ValueError('two\\nlines')", "crashed", "ValueError: two lines"),
        ("os._exit(7)", "crashed", "ended with exit code 7 and no result; see stderr.txt"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "killed by SIGSEGV"),
        ("raise MemoryError('torch')", "oom", "MemoryError: torch"),
        ("torch.empty(2**60)", "oom", "allocate"),
        ("sys.exit(1)", "crashed", "ended with exit code 1"),
        (
            "return {'loss': 0.5}",
            "crashed",
            "metric 'loss' is a float; a tensor would spare the device a synchronisation",
        ),
        ("return {}", "crashed", "train_step returns [], without 'loss'"),
        ("return {'loss': torch.tensor(float('inf'))}", "diverged", "the loss is inf at step 1 of epoch 1"),
    ],
)
def test_every_end_has_its_word(attempt: Any, act: str, status: str, reason: str | None) -> None:
    summary, folder = attempt(act)
    assert summary["status"] == status
    assert summary["reason"] == reason or reason in summary["reason"]
    assert folder.summary() is not None
    assert folder.summary()["status"] == status


def test_a_plugin_that_is_edited_after_the_plan_is_not_run(tmp_path: Path) -> None:
    """The run would carry the hash of code that it is not made by."""
    path = tmp_path / "bad.py"
    path.write_text(PLUGIN.format(act="pass"))
    planned = _plan(["bad"], [path])
    path.write_text(PLUGIN.format(act="self.steps += 1"))
    where = Options(tmp_path / "results", "exp", "cpu")
    for runs, status, is_checked in ((planned, "interrupted", False), (_plan(["bad"], [path]), "ok", True)):
        (summary,) = Local().run_all(runs, where, lambda *_: None, threading.Event())
        assert summary is not None
        assert (summary["status"], summary["sources_checked"]) == (status, is_checked)
        kept = RunFolder(where.root, "exp", runs[0].spec.run_id).summary()
        assert kept is not None
        assert kept["sources_checked"] == is_checked
        if not is_checked:
            assert "the code of bad was edited after the command began" in summary["reason"]


def test_a_run_whose_process_dies_at_once_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = {"status": "crashed", "reason": "ended with exit code 3 and no result; see stderr.txt"}
    monkeypatch.setattr(isolate, "execute", lambda *_, **__: died)
    (run,) = _plan(["backprop"], [])
    where = Options(tmp_path / "results", "exp", "cpu")
    Local().run_all([run], where, lambda *_: None, threading.Event())
    (row,) = Results(where.root / "exp", columns=()).runs.to_dict("records")
    assert (row["run_id"], row["status"], row["reason"]) == (run.spec.run_id, *died.values())


def test_what_a_run_says_on_stderr_is_kept(attempt: Any) -> None:
    _, folder = attempt("print('a last word', file=sys.stderr); raise ValueError('lost')")
    text = folder.stderr.read_text()
    assert "a last word" in text
    assert "Traceback" in text
    assert "ValueError: lost" in text


def test_a_record_that_cannot_be_written_does_not_end_the_run(attempt: Any) -> None:
    """What a full disk does: the run is interrupted with the reason, and the next start finishes it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))"
    act = f"exec({limit!r})"
    summary, folder = attempt(act)
    assert summary["status"] == "interrupted"
    assert "cannot write" in summary["reason"]
    assert not folder.is_final()
    assert attempt("pass")[0]["status"] == "ok"


def test_a_run_that_hangs_is_stopped_at_its_time(attempt: Any) -> None:
    began = time.monotonic()
    summary, _ = attempt("subprocess = os.fork() or time.sleep(600); time.sleep(600)", timeout_s=3.0)
    assert (summary["status"], summary["reason"]) == ("timeout", "stopped after 3 s")
    assert time.monotonic() - began < 30
    assert _alive_below_us() == []


def test_a_request_to_stop_leaves_a_checkpoint_and_the_next_start_goes_on(attempt: Any, tmp_path: Path) -> None:
    reached, hurry = tmp_path / "reached", tmp_path / "hurry"
    wait = f"os.path.exists({str(hurry)!r}) or (open({str(reached)!r}, 'w').close(), time.sleep(1))"
    act = f"self.steps < 5 or not in_training() or {wait}"
    stop = threading.Event()

    def ask() -> None:
        until(reached.exists)
        stop.set()

    threading.Thread(target=ask).start()
    summary, folder = attempt(act, stop=stop)
    assert summary["status"] == "interrupted"
    assert 5 <= summary["steps"] < 10
    assert folder.checkpoint.exists()

    hurry.touch()
    again, _ = attempt(act)
    assert (again["status"], again["steps"]) == ("ok", 10)
    assert not folder.checkpoint.exists()
    assert again["train_s"] > summary["train_s"] > 1


def test_a_finished_run_is_kept_and_a_fresh_one_is_asked_for(attempt: Any) -> None:
    _, folder = attempt("pass")
    stamp = (folder.path / "summary.json").stat().st_mtime_ns
    assert attempt("pass")[0] == folder.summary()
    assert (folder.path / "summary.json").stat().st_mtime_ns == stamp
    attempt("pass", fresh=True)
    assert (folder.path / "summary.json").stat().st_mtime_ns > stamp


def test_a_timed_out_run_goes_on_when_it_is_given_more_time(attempt: Any) -> None:
    act = "time.sleep(0.3 if self.steps < 1000 else 0)"
    assert attempt(act, timeout_s=1.5)[0]["status"] == "timeout"
    assert attempt(act, timeout_s=1.5)[0]["status"] == "timeout"
    assert attempt(act, timeout_s=60.0)[0]["status"] == "ok"


def test_one_bad_run_does_not_touch_the_others(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(PLUGIN.format(act="os.kill(os.getpid(), signal.SIGSEGV)"))
    runs = _plan(["bad", "backprop"], [path])
    heard: list[tuple[str, type[Event]]] = []
    summaries = Local().run_all(
        runs,
        Options(tmp_path, "exp", "cpu", jobs=2),
        lambda run, event: heard.append((run.spec.method, type(event))),
        threading.Event(),
    )
    assert [s and s["status"] for s in summaries] == ["crashed", "ok"]
    for name in ("bad", "backprop"):
        own = [kind for method, kind in heard if method == name]
        assert (own[0], own[-1]) == (Started, Ended)


def test_a_kill_from_outside_is_not_the_method_s_failure(attempt: Any, tmp_path: Path) -> None:
    """The run is interrupted, and the same command goes on from its checkpoint."""
    pid, hurry = tmp_path / "pid", tmp_path / "hurry"
    wait = f"open({str(pid)!r}, 'w').write(str(os.getpid())), time.sleep(600)"
    act = f"self.steps < 5 or os.path.exists({str(hurry)!r}) or ({wait})"

    def kill() -> None:
        os.kill(int(_wait_for(pid)), signal.SIGKILL)

    threading.Thread(target=kill).start()
    summary, folder = attempt(act)
    assert summary["status"] == "interrupted"
    assert "killed from outside" in summary["reason"]
    assert not folder.is_final()
    hurry.touch()
    assert attempt(act)[0]["status"] == "ok"


def test_a_run_that_is_killed_whenever_it_comes_to_one_place_is_given_up(attempt: Any) -> None:
    act = "os.kill(os.getpid(), signal.SIGKILL)"
    ends = [attempt(act)[0]["status"] for _ in range(KILLS)]
    assert ends == ["interrupted"] * (KILLS - 1) + ["crashed"]
    assert "SIGKILL 3 times in a row at the same place" in attempt(act)[0]["reason"]


def test_a_run_goes_on_when_the_server_that_started_it_is_killed(attempt: Any, tmp_path: Path) -> None:
    pid, hurry = tmp_path / "pid", tmp_path / "hurry"
    wait = f"open({str(pid)!r}, 'w').write(str(os.getppid())), _WAIT({str(hurry)!r})"
    waiting = "(lambda path: [time.sleep(0.05) for _ in iter(lambda: os.path.exists(path), True)])"
    act = f"self.steps != 5 or ({wait.replace('_WAIT', waiting)})"

    def kill() -> None:
        server = psutil.Process(int(_wait_for(pid)))
        server.kill()
        until(lambda: not server.is_running() or server.status() == "zombie")
        time.sleep(1.0)
        hurry.touch()

    threading.Thread(target=kill).start()
    assert attempt(act)[0]["status"] == "ok"
    assert attempt("pass")[0]["status"] == "ok"  # there is a new server


def test_what_the_caller_has_forked_from_the_same_server_lives_on(attempt: Any) -> None:
    """A pool in a notebook, say: from Python 3.14 on such a server is what `multiprocessing` uses unless told."""
    assert attempt("pass")[0]["status"] == "ok"
    with isolate.quiet_main():
        own = isolate.context().Process(target=time.sleep, args=(600,))
        own.start()
    try:
        assert attempt("os.fork() or (os.setsid(), time.sleep(600))")[0]["status"] == "ok"
        assert own.is_alive()
    finally:
        own.kill()
        own.join()


def test_chosen_failures_are_run_again(attempt: Any, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    act = f"assert os.path.exists({str(mended)!r}), 'broken'"
    assert attempt(act)[0]["status"] == "crashed"
    mended.touch()
    assert attempt(act)[0]["status"] == "crashed"
    assert attempt(act, retry=frozenset(("timeout",)))[0]["status"] == "crashed"
    assert attempt(act, retry=frozenset(("crashed",)))[0]["status"] == "ok"


def test_of_what_a_run_prints_head_and_tail_are_kept(attempt: Any) -> None:
    """50 MB a step would fill a disk in an afternoon."""
    summary, folder = attempt("print('first' if self.steps == 1 else '', 'x' * 50_000_000, 'last')")
    assert summary["status"] == "ok"
    text = folder.stderr.read_text()
    assert len(text) < output.HEAD + output.TAIL + 100
    assert text.startswith("first")
    assert text.rstrip().endswith("last")
    assert "bytes left out" in text


def test_little_is_kept_whole_and_nothing_leaves_no_file(attempt: Any) -> None:
    _, folder = attempt("in_training() and self.steps == 1 and print('y' * 30_000)")
    assert folder.stderr.read_text().count("y") == 30_000
    _, folder = attempt("pass")
    assert not folder.stderr.exists()


def test_two_processes_share_an_experiment(tmp_path: Path) -> None:
    """Both end with every row, and no run was done twice."""
    command = [sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--methods", "backprop"]
    command += ["--net", "mlp", "--epochs", "1", "--seeds", "4", "--jobs", "2"]
    command += ["--results", str(tmp_path / "r"), "--reports", str(tmp_path / "p")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    finished = [line for output in outputs for line in output.splitlines() if ": ok, test" in line]
    assert len(finished) == 4
    assert "leaked" not in "".join(outputs)  # a fork server that ends noisily would be heard by the user
    assert len(list((tmp_path / "r").glob("*/*/summary.json"))) == 4


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(PLUGIN.format(act=f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"))
    command = [sys.executable, "-c", "from bench.cli.main import main; main()", "run", "--plugin", str(path)]
    command += ["--methods", "bad", "--results", str(tmp_path / "r"), "--seeds", "1", "--jobs", "2"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    child = int(_wait_for(tmp_path / "pid"))
    assert psutil.pid_exists(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def _wait_for(path: Path) -> str:
    until(lambda: path.exists() and path.read_text() != "")
    return path.read_text()


def _alive_below_us() -> list[int]:
    """Runs that are still there: leaders of process groups of their own below this process."""
    time.sleep(0.5)
    children = psutil.Process().children(recursive=True)
    return [p.pid for p in children if p.status() != "zombie" and os.getpgid(p.pid) == p.pid]
