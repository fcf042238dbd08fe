"""Processes of runs import from where the command did: nothing in the working folder is executed."""

import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from bench.executors import importing, isolate
from bench.executors.importing import EXTRA, SAFE, same_imports, search_path

HOSTILE = ("torch", "numpy", "queue", "random", "multiprocessing", "bench/__init__", "methods/__init__", "signal")
RUN = "run --methods backprop --net mlp --seeds 1 --steps 2 --batch-size 32 --quiet".split()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that leave a file `touched` where one is executed."""
    for name in HOSTILE:
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"open({str(tmp_path / 'touched')!r}, 'a').write(__name__); raise SystemExit(3)")
    return tmp_path


@pytest.mark.slow
def test_nothing_in_the_working_folder_is_executed_by_a_run(hostile: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("bench")), *RUN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "touched").exists()


def test_the_fork_server_imports_nothing_from_the_working_folder(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the server is started as it is: by `python -c`, in that folder."""
    monkeypatch.chdir(hostile)
    started = list[int]()

    def ensure_running() -> None:
        program = "import queue, random, signal"
        started.append(subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode)

    monkeypatch.setattr(forkserver, "ensure_running", ensure_running)
    isolate.warm()
    with isolate.quiet_main():
        ensure_running()
    assert started == [0, 0]
    assert not (hostile / "touched").exists()


@pytest.mark.parametrize("added", ["", "HERE"])
def test_the_working_folder_that_the_interpreter_added_is_left_out(
    added: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook has '' first, `python -m` the folder itself."""
    monkeypatch.chdir(tmp_path)
    rest = [entry for entry in sys.path if entry]
    monkeypatch.setattr(sys, "path", [added and str(tmp_path), *rest])
    assert str(tmp_path) not in search_path()
    assert search_path() == list(dict.fromkeys(map(os.path.abspath, rest)))


def test_the_working_folder_stays_where_the_user_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv(EXTRA, str(tmp_path))
    assert search_path()[0] == str(tmp_path)


def test_a_source_checkout_that_bench_was_imported_from_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importing, "HOME", str(tmp_path.resolve()))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert search_path()[0] == str(tmp_path)


def test_path_and_environment_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAFE, raising=False)
    monkeypatch.setenv(EXTRA, "/before")
    path = sys.path.copy()
    with same_imports():
        assert os.environ[SAFE] == "1"
        assert os.environ[EXTRA] == os.pathsep.join(search_path())
    assert (sys.path, os.environ.get(SAFE), os.environ[EXTRA]) == (path, None, "/before")
