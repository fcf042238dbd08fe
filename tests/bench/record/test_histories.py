"""Whatever has happened to a results folder: a row of a table is one sample.

Random histories of runs, searches, edits of a method, changes of data, repeats with other instruments, merges and
packs, written as the records they leave. In every frame, table, pair and aggregate each seed counts once, over one data
content, of one source and one set of settings, and what is left out is counted.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.api.column import Column
from bench.experiment.identity import RunSpec
from bench.record.folder import RunFolder
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.results import Results
from bench.report.summary import summary_frame
from bench.report.versus import versus_frame
from bench.stats import paired_differences
from bench.stats.aggregate import scores_of

COLUMNS = (
    Column("test_acc", "test acc, %", "accuracy", scale=100, interval=True, shown="terminal"),
    Column("reverse_mode", "reach", "how far", text=True),
    Column("angle", "angle", "what an instrument adds"),
)
ROW = ["dataset", "method", "net", "variant"]
STEPS = 12  # of a history
BUDGETS: tuple[dict[str, Any], ...] = ({}, {"epochs": 4}, {"seconds": 60.0}, {"seconds": 60.0001}, {"patience": 3})


class History:
    """A results folder, and the world in which its next run takes place."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root, self.draw = root, draw
        self.clock = 0.0
        self.data = {"digits": "d0", "mine": "m0"}
        self.source = {"backprop": "b0", "rule": "r0"}
        self.best: dict[str, float] = {}

    def run(self) -> None:
        """Some seeds of both methods, as one command plans them."""
        draw = self.draw
        shared: dict[str, Any] = {
            "dataset": draw.choice(("digits", "digits", "mine")), "threads": draw.choice((1, 1, 2)),
            "batch_size": draw.choice((64, 64, 32)), "val_fraction": draw.choice((0.1, 0.1, 0.2)),
            "instruments": tuple(sorted(draw.sample(("alignment", "read-out"), draw.choice((0, 0, 1, 2))))),
            "device": draw.choice(("cpu", "cpu", "cuda")), **draw.choice(BUDGETS),
        }  # fmt: skip
        tuned = draw.random() < 0.4
        for method in draw.choice((("backprop", "rule"), ("rule",))):
            chosen = {"lr": self.best[method]} if tuned and method in self.best else {}
            settings = {"lr": 0.1, "decay": draw.choice((0.0, 0.0, 0.5)), **chosen}
            for seed in range(draw.choice((1, 2, 3))):
                self.record(method, seed, settings, tuple(chosen), shared)

    def record(
        self, method: str, seed: int, settings: dict[str, Any], tuned: tuple[str, ...], shared: dict[str, Any]
    ) -> None:
        data_id = f"{self.data[shared['dataset']]}{shared['val_fraction']}"
        spec = RunSpec(
            method=method, method_settings=settings, method_source=self.source[method], net="mlp",
            net_settings={"width": self.draw.choice((8, 8, 16))}, net_source="n", data_id=data_id, seed=seed,
            eval_draws=5, tuned=tuned, **{"epochs": 2, **shared},
        )  # fmt: skip
        folder = RunFolder(self.root, self.draw.choice(("one", "one", "two")), spec.run_id)
        if folder.is_final():
            return
        folder.create(spec.model_dump(mode="json"), {"env_id": "e"})
        self.clock += 1
        if self.draw.random() < 0.1:
            return  # interrupted
        same = spec.model_copy(update={"instruments": ()}).run_id  # they change no number
        status = "diverged" if self.draw.random() < 0.1 else "ok"
        measured = {"test_acc": int(same, 16) / 16**16, "reverse_mode": "layer"} if status == "ok" else {}
        measured |= {"angle": 1.0} if "alignment" in spec.instruments and measured else {}
        folder.finish({"status": status, "reason": None, "finished_at": self.clock, **measured})

    def tune(self) -> None:
        self.best[self.draw.choice(("backprop", "rule"))] = self.draw.choice((0.1, 0.2, 0.3))

    def edit(self) -> None:
        self.source[self.draw.choice(("backprop", "rule"))] += "+"

    def change_data(self) -> None:
        self.data[self.draw.choice(("digits", "mine"))] += "+"

    def go(self) -> None:
        happens = [self.run] * 6 + [self.tune] * 2 + [self.edit, self.change_data]
        for _ in range(STEPS):
            self.draw.choice(happens)()
        self.run()


def results(root: Path, **options: Any) -> Results:
    return Results(root, columns=COLUMNS, **options)


def specs(root: Path) -> dict[str, dict[str, Any]]:
    found = (json.loads(path.read_bytes()) for path in root.rglob("spec.json"))
    return {RunSpec(**{k: v for k, v in spec.items() if k not in ("run_id", "schema")}).run_id: spec for spec in found}


def samples(runs: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    yield from runs.groupby(ROW)


def check_frame(runs: pd.DataFrame, of: dict[str, dict[str, Any]]) -> None:
    for row, sample in samples(runs):
        assert sample["seed"].is_unique, row
        ran = [of[run_id] for run_id in sample["run_id"]]
        for spec in ran:
            same = {k: v for k, v in spec.items() if k not in ("seed", "instruments", "run_id")}
            first = {k: v for k, v in ran[0].items() if k not in ("seed", "instruments", "run_id")}
            assert same == first, row


@pytest.mark.parametrize("seed", range(25))
def test_each_row_is_one_sample(seed: int, tmp_path: Path) -> None:
    history = History(tmp_path / "results", random.Random(seed))
    history.go()
    of = specs(history.root)
    for all_sources in (False, True):
        found = results(history.root, all_sources=all_sources)
        check_frame(found.runs, of)
        lost = found.n_older + found.n_other_data + found.n_repeats + found.n_contradictions
        assert len(found.runs) + lost == len(of), "what is left out is counted"
        if all_sources:
            assert (found.n_older, found.n_other_data) == (0, 0)
        else:  # one source a method and net, one content a data set and validation part
            shown = [of[run_id] for run_id in found.runs["run_id"]]
            for keys, one in (
                (["dataset", "method", "net"], "method_source"),
                (["dataset", "val_fraction"], "data_id"),
            ):
                assert pd.DataFrame(shown).groupby(keys)[one].nunique().max() == 1
        check_summary(found, of)
        check_aggregates(found)


def check_summary(found: Results, of: dict[str, dict[str, Any]]) -> None:
    """Counts and pairs: of as many seeds as ended well, over the same data, the rule never with more search."""
    runs = found.runs
    differences = paired_differences(runs, 0.01)
    summary = summary_frame(runs, COLUMNS, differences).set_index(ROW)
    for row, sample in samples(runs):
        assert summary.loc[row, "n_runs"] == sample["seed"].nunique()
    for line in differences.itertuples():
        if isinstance(line.twin_variant, str):
            ours = runs[(runs[ROW] == [line.dataset, line.method, line.net, line.variant]).all(axis=1)]
            theirs = runs[(runs[ROW] == [line.dataset, "backprop", line.net, line.twin_variant]).all(axis=1)]
            theirs = theirs[theirs["data_id"] == ours["data_id"].iat[0]]
            assert len(theirs), "never over other data"
            if ours["tuned"].iat[0]:
                assert (theirs["tuned"] != "").all()
            ok = [set(side.loc[side["status"] == "ok", "seed"]) for side in (ours, theirs)]
            assert line.n_pairs == len(ok[0] & ok[1])


def check_aggregates(found: Results) -> None:
    ok = found.runs[found.runs["status"] == "ok"]
    for (method, net, variant), scores in scores_of(found.runs).items():
        here = ok[(ok["method"] == method) & (ok["net"] == net) & (ok["variant"] == variant)]
        assert sorted(map(len, scores)) == sorted(here.groupby("dataset")["seed"].nunique())


@pytest.mark.parametrize("seed", range(4))
def test_it_stays_one_when_folders_are_merged_packed_and_compared(seed: int, tmp_path: Path) -> None:
    draw = random.Random(1000 + seed)
    a, b = History(tmp_path / "a", draw), History(tmp_path / "b", draw)
    for history in (a, b):
        history.go()
    of = specs(a.root) | specs(b.root)
    merge([a.root, b.root], tmp_path / "both")
    check_frame(results(tmp_path / "both").runs, of)
    before = results(tmp_path / "both" / "one").runs
    pack(tmp_path / "both" / "one", tmp_path / "packed" / "one")
    pd.testing.assert_frame_equal(results(tmp_path / "packed" / "one").runs, before)
    cells = versus_frame(results(a.root), results(b.root))
    for line in cells.itertuples():
        assert line.n_pairs <= min(line.n_a, line.n_b) <= 3
