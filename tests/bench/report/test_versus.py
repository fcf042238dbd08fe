"""Cells of two folders, from records on the disk."""

from pathlib import Path

from bench.report.versus import versus_frame
from tests.bench.record.test_results import record, results


def test_two_commits_of_a_method_are_one_cell(tmp_path: Path) -> None:
    for folder, source, accuracy in (("a", "old", 0.5), ("b", "new", 0.6)):
        for seed in (0, 1):
            record(tmp_path / folder, {"status": "ok", "test_acc": accuracy}, seed=seed, method_source=source)
    frame = versus_frame(results(tmp_path / "a"), results(tmp_path / "b"))
    assert list(frame["variant"]) == [""]
    assert list(frame["n_pairs"]) == [2]
    assert abs(frame["b_minus_a_diff_mean"][0] - 0.1) < 1e-12


def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    for folder, size in (("a", 32), ("b", 64)):
        record(tmp_path / folder, {"status": "ok", "test_acc": 0.5}, batch_size=size)
    assert len(versus_frame(results(tmp_path / "a"), results(tmp_path / "b"))) == 2
