"""How many threads a step has: one, unless the user says more and there are cores for them."""

import os
from pathlib import Path

import pytest

from bench.api.errors import ConfigError
from bench.experiment import threads
from bench.experiment.config import resolve

ASKED = {"methods": ["backprop"]}


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of four cores; the folder of its control groups, in which nothing is limited yet."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "flag", "wanted"),
    [(None, None, 1), ("1", None, 1), ("3", None, 3), ("4,2", None, 4), ("many", None, 1), ("0", None, 1), ("3", 2, 2)],
)
def test_the_flag_goes_before_the_environment(
    environment: str | None, flag: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(threads.OMP, raising=False)
    if environment is not None:
        monkeypatch.setenv(threads.OMP, environment)
    assert resolve("default", None, {**ASKED, "threads": flag}, []).threads == wanted


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 4),
    ],
)
def test_a_quota_counts_as_fewer_cores(four_cores: Path, files: dict[str, str], cores: int) -> None:
    """A container of two cores on a machine of four sees four, and is held back at two."""
    for name, content in files.items():
        (four_cores / name).parent.mkdir(exist_ok=True)
        (four_cores / name).write_text(content + "\n")
    assert threads.granted() == cores


@pytest.mark.parametrize(
    ("n", "jobs", "fits"), [(1, 1, True), (4, 1, True), (5, 1, False), (2, 2, True), (2, 3, False)]
)
def test_threads_without_cores_are_refused(four_cores: Path, n: int, jobs: int, fits: bool) -> None:
    if fits:
        threads.check(n, jobs)
    else:
        with pytest.raises(ConfigError, match=r"granted 4; lower --"):
            threads.check(n, jobs)


def test_runs_of_one_thread_may_be_more_than_the_cores(four_cores: Path) -> None:
    threads.check(1, 16)
