"""Where a sweep stands: counted by what is on disk, locks included, and a forecast from runs that are alike."""

from pathlib import Path

import pytest

from bench.api.errors import StoreError
from bench.record.folder import RunFolder
from bench.record.standing import save_plan, standings


def planned(root: Path) -> list[dict[str, object]]:
    """Two rows of two seeds."""
    runs: list[dict[str, object]] = [
        {"run_id": f"{method}{seed}", "dataset": "d", "net": "n", "method": method, "seed": seed, "epochs": 4}
        for method in ("a", "b")
        for seed in (0, 1)
    ]
    save_plan(root / "exp", runs)
    return runs


def test_what_ended_what_is_at_work_and_what_waits(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    RunFolder(tmp_path, "exp", "a0").finish({"status": "ok", "wall_s": 100.0})
    RunFolder(tmp_path, "exp", "b0").finish({"status": "oom", "wall_s": 10.0})
    RunFolder(tmp_path, "exp", "b1").finish({"status": "interrupted", "wall_s": 1.0})
    busy = RunFolder(tmp_path, "exp", "a1")
    busy.create(runs[1], {})
    busy.write_curve([{"epoch": 1, "step": 1, "train_loss": 0.5}])
    assert busy.lock() is not None
    (standing,) = standings(tmp_path)
    assert (standing.planned, standing.ended, standing.waiting) == (4, {"ok": 1, "oom": 1}, 1)
    (at_work,) = standing.at_work
    assert (at_work.label, at_work.epoch, at_work.epochs) == ("a on n, d, seed 1", 1, 4)
    assert standing.remaining_s == pytest.approx(3 * at_work.seconds + 10.0, abs=0.5)


def test_a_row_without_an_ended_run_is_judged_by_its_neighbours(tmp_path: Path) -> None:
    planned(tmp_path)
    assert standings(tmp_path / "exp")[0].remaining_s is None
    RunFolder(tmp_path, "exp", "a0").finish({"status": "ok", "wall_s": 100.0})
    assert standings(tmp_path / "exp")[0].remaining_s == 300.0
    for run_id in ("a1", "b0", "b1"):
        RunFolder(tmp_path, "exp", run_id).finish({"status": "ok", "wall_s": 100.0})
    assert standings(tmp_path / "exp")[0].remaining_s == 0.0


def test_no_plan_or_a_broken_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no plan\.json; name a folder"):
        standings(tmp_path)
    planned(tmp_path)
    for broken in ("{", "{}", '[{"run_id": "a"}]', "[1]"):
        (tmp_path / "exp" / "plan.json").write_text(broken)
        with pytest.raises(StoreError, match=r"plan\.json is corrupt"):
            standings(tmp_path)
