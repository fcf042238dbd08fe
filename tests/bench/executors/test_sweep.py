"""What executors share: kept runs, jobs, lost runs and the order of summaries."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.executors.attempt import Terms
from bench.executors.executor import Options
from bench.executors.sweep import Sweep
from bench.runner.events import Ended, Kept
from tests.bench.runner.made import spec


def sweep(root: Path, **terms: Any) -> tuple[Sweep, list[Any]]:
    """Of three runs that differ in their seeds, and what its listener hears."""
    runs: list[Any] = [SimpleNamespace(spec=spec(seed=seed)) for seed in range(3)]
    heard: list[Any] = []
    options = Options(root, "exp", "cpu", data_dir=Path("data"), terms=Terms(**terms))
    return Sweep(runs, options, lambda run, event: heard.append((run, event)), threading.Event()), heard


@pytest.mark.parametrize(
    ("status", "terms", "afresh", "kept"),
    [
        (None, {}, False, False),
        ("ok", {}, False, True),
        ("ok", {}, True, False),
        ("interrupted", {}, False, False),
        ("crashed", {}, False, True),
        ("crashed", {"retry": frozenset(["crashed"])}, False, False),
    ],
)
def test_a_record_that_stands_is_kept_and_told(
    tmp_path: Path, status: str | None, terms: dict[str, Any], afresh: bool, kept: bool
) -> None:
    of, heard = sweep(tmp_path, **terms)
    if status is not None:
        of._folder(1).create(of.runs[1].spec.model_dump(mode="json"), None)
        of._folder(1).finish({"status": status})
    assert of._is_kept(1, afresh=afresh) is kept
    assert [type(event) for _, event in heard] == [Kept] * kept
    assert [end and end["status"] for end in of.outcome] == [None, status if kept else None, None]


def test_a_job_is_told_the_options_and_what_differs(tmp_path: Path) -> None:
    of, _ = sweep(tmp_path)
    job = of._job(2, device="cuda:1", cores=(3,))
    assert (job.run, job.root, job.experiment, job.device, job.cores) == (of.runs[2], tmp_path, "exp", "cuda:1", (3,))
    assert (of._job(0).device, of._job(0).data_dir, of._job(0).cores) == ("cpu", Path("data"), ())


def test_resolved_options_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Options(Path("results"), "exp", "cpu", data_dir=Path("data"))
    there = here.resolved()
    assert (there.root, there.data_dir) == (tmp_path / "results", tmp_path / "data")
    assert Options(Path("results"), "exp", "cpu").resolved().data_dir is None


def test_a_lost_run_ends_in_its_record_where_nobody_works_on_it(tmp_path: Path) -> None:
    of, _ = sweep(tmp_path, after=1e9)
    for index in range(3):
        of._folder(index).create(of.runs[index].spec.model_dump(mode="json"), None)
    lost = of._lost(0, "oom", "gone")
    assert (lost["status"], lost["reason"]) == ("oom", "gone")
    record = of._folder(0).summary()
    assert record is not None
    assert lost.items() <= record.items()
    assert (record["method"], record["seed"]) == (of.runs[0].spec.method, 0)
    fd = of._folder(1).lock()
    assert fd is not None
    assert not of._is_free(1)
    of._lost(1, "interrupted", "gone")
    assert of._folder(1).summary() is None  # another process may be at work on it
    of._lost(1, "interrupted", "gone", held=fd)
    assert (of._folder(1).summary() or {})["status"] == "interrupted"
    assert not of._is_free(1)  # the lock stays with whoever has it
    os.close(fd)
    assert of._is_free(1)


def test_a_lost_run_without_a_record_leaves_none(tmp_path: Path) -> None:
    of, heard = sweep(tmp_path)
    of._is_done(0, of._lost(0, "interrupted", "gone"), Ended)
    assert of._folder(0).summary() is None
    assert [type(event) for _, event in heard] == [Ended]
    assert [end is not None for end in of.outcome] == [True, False, False]
