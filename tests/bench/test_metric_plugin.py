"""A metric in one file of the user's, as the primary one: tables, curves, search and comparison follow it."""

import json
from pathlib import Path

import pytest

import bench
from bench.catalog.catalog import Catalog
from bench.command import results_of
from bench.record import searches
from bench.report.versus import versus_frames, versus_table

PLUGIN = '''
"""The mean rank of the label among the scores: 0 is perfect."""
import torch
from bench.api.metric import Metric
from bench.catalog.register import register

@register
class MeanRank(Metric):
    name, key, title, what = "mean-rank", "rank", "rank, places", "mean rank of the label's score"
    outputs, better, bounds, decimals = ("classes",), "lower", (0.0, None), 2

    def __init__(self, output):
        super().__init__(output)
        self.sums, self.count = [], 0

    def add(self, out, y):
        self.sums.append((out > out.gather(1, y[:, None])).sum())
        self.count += len(y)

    def value(self):
        return float(torch.stack(self.sums).sum()) / self.count
'''
METRICS = ["mean-rank", "accuracy"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bench.Study:
    root = tmp_path_factory.mktemp("rank")
    file = root / "my_metric.py"
    file.write_text(PLUGIN)
    return bench.run(
        ["backprop", "spsa"], plugins=[file], metrics=METRICS, results=root / "results", experiment="ranked",
        net="mlp", seeds=2, epochs=2, datasets=["digits"], tune={"trials": 2, "epochs": 1}, quiet=True,
    )  # fmt: skip


def test_tables_and_pictures_follow_the_primary_metric(study: bench.Study, tmp_path: Path) -> None:
    assert [primary.test for primary in study.primaries] == ["test_rank"]
    backprop, spsa = (study.summary().set_index("method")["test_rank_mean"][name] for name in ("backprop", "spsa"))
    assert 0 <= backprop < spsa
    difference = study.summary().set_index("method").loc["spsa", "test_rank_diff_mean"]
    assert difference == pytest.approx(spsa - backprop)
    assert study.plot_accuracy() is not None
    assert study.plot_curves() is not None
    text = study.report(tmp_path / "report").read_text()
    assert "| test rank, places | vs backprop, rank, places |" in text
    assert "test rank" in text
    assert "above backprop on the same net (higher (worse)" in text or "needs" in text
    assert "figures/rank.png" in text
    assert "figures/curve_epoch_rank.png" in text
    assert "test acc, %" in text


def test_curves_and_summaries_hold_every_metric_and_name_the_primary_one(study: bench.Study) -> None:
    assert study.curves[["val_rank", "val_acc"]].notna().all(axis=None)
    for path in study.root.glob("*/summary.json"):
        assert json.loads(path.read_text())["primary_metric"] == "rank"


def test_the_search_takes_the_lowest_trial(study: bench.Study) -> None:
    for row in searches.load(searches.beside(study.root)):
        values = [trial.value for trial in row.tried if trial.value is not None]
        assert row.primary.key == "rank"
        assert row.value == min(values)
        assert row.at_chance == pytest.approx(4.5, abs=1)  # of ten classes in any order


def test_reports_and_comparisons_of_foreign_records_need_no_plugin(study: bench.Study) -> None:
    sides = [results_of(study.root, Catalog()) for _ in range(2)]
    ((primary, frame),) = versus_frames(*sides)
    assert (primary.key, primary.higher) == ("rank", False)
    assert set(frame["conclusion"]) == {"equivalent within 1% of A's"}
    assert "A, test rank, places" in versus_table(frame, [], primary).headers
