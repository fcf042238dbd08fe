"""Locks of folders, by several processes, and where a file system has none."""

import errno
import fcntl
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import StoreError
from bench.record import searches
from bench.record.folder import RunFolder
from bench.record.locks import busy_since, lock, locked, prepare
from bench.record.merge import merge
from bench.record.results import Results
from tests.bench.record.test_merge import COLUMNS, add, search

FORKED = multiprocessing.get_context("fork")


def _merged(source: Path, out: Path, barrier: Any) -> None:
    barrier.wait()
    merge([source], out)


def test_several_merges_into_one_folder_at_once_keep_all_runs_and_searches(tmp_path: Path) -> None:
    out, n = tmp_path / "out", 4
    barrier = FORKED.Barrier(n)
    for k in range(n):
        source = tmp_path / f"s{k}"
        for seed in range(3):
            add(source, 10 * k + seed, test_acc=0.5)
        found = search(0.1).model_copy(update={"dataset": f"d{k}"})
        searches.save([found], searches.beside(source / "exp"))
    at_work = [FORKED.Process(target=_merged, args=(tmp_path / f"s{k}", out, barrier)) for k in range(n)]
    for process in at_work:
        process.start()
    for process in at_work:
        process.join(60)
        assert process.exitcode == 0
    found_runs = Results(out, columns=COLUMNS)
    assert len(found_runs.runs) == 3 * n
    assert {row.dataset for row in found_runs.searches} == {f"d{k}" for k in range(n)}
    assert not list(out.rglob(".lock")) + list(out.rglob("*.tmp"))


def _held(folder: RunFolder, ready: Any, end: Any) -> None:
    assert folder.lock() is not None
    ready.set()
    end.wait(60)


def test_a_run_in_another_process_is_not_merged_over_also_once_that_is_killed(tmp_path: Path) -> None:
    """The run that was killed is to be continued, or merged over as a whole: never a mixture."""
    add(tmp_path / "a", 0, test_acc=0.5)
    target = add(tmp_path / "out", 0)  # begun
    target.write_curve([{"epoch": 1, "step": 8, "train_loss": 0.5}])
    ready, end = FORKED.Event(), FORKED.Event()
    other = FORKED.Process(target=_held, args=(target, ready, end))
    other.start()
    assert ready.wait(60)
    assert busy_since(target.path) is not None
    with pytest.raises(StoreError, match="run0 is at work"):
        merge([tmp_path / "a"], tmp_path / "out")
    other.kill()
    other.join()
    assert target.summary() is None
    merge([tmp_path / "a"], tmp_path / "out")
    assert (target.path / "curve.csv").read_bytes() == (tmp_path / "a/exp/run0/curve.csv").read_bytes()


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has it removes it as it gives it free: the next one takes the file that stands there then."""
    flock, removed = fcntl.flock, [False]

    def slow(fd: int, how: int) -> None:
        if not removed[0]:
            removed[0] = True
            (tmp_path / "x").unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    fd = lock(tmp_path / "x")
    assert fd is not None
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "x"))
    with pytest.raises(StoreError, match="is at work"), locked(tmp_path / "x", patience_s=0.05):
        pass
    os.close(fd)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_with_the_mend_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"results/exp cannot be locked .*: name a folder on a disk of this machine"):
        prepare(tmp_path / "deep" / "results", "exp")
    assert list(tmp_path.iterdir()) == []
    add(tmp_path, 0)
    assert busy_since(tmp_path / "exp" / "run0") is None  # readers go without


def test_a_place_that_cannot_be_written_is_named_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / ("x" * 300), tmp_path / "nul\0"):
        with pytest.raises(StoreError, match="cannot write"):
            prepare(root, "exp")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    prepare(tmp_path / "new", "exp")
    assert list((tmp_path / "new" / "exp").iterdir()) == []
