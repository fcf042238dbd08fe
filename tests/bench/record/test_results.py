"""Records: whole or not at all, one writer at a time, and nothing unpickled."""

import json
import os
import time
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.experiment.identity import RunSpec
from bench.record.files import atomic_write
from bench.record.folder import RunFolder
from bench.record.results import Results
from bench.record.schema import CURVE, IDENTITY

OK = {"status": "ok", "reason": None}
COLUMNS = (Column("test_acc", "test acc, %", "accuracy"), Column("reach", "reach", "how far", text=True))


def spec(**changes: Any) -> RunSpec:
    base = dict(
        method="backprop", method_settings={"lr": 0.1}, method_source="s", net="mlp", net_settings={"width": 8},
        net_source="n",
        dataset="digits", data_id="d", seed=0, epochs=2, batch_size=64, val_fraction=0.1, eval_draws=5, device="cpu",
    )  # fmt: skip
    return RunSpec(**{**base, **changes})


def results(root: Path, **options: Any) -> Results:
    return Results(root, columns=COLUMNS, **options)


def record(root: Path, summary: dict[str, Any] | None = None, **changes: Any) -> RunFolder:
    folder = RunFolder(root, "exp", spec(**changes).run_id)
    folder.create(spec(**changes).model_dump(mode="json"), {"env_id": "e1", "cpu": "some"})
    if summary is not None:
        folder.finish(summary)
    return folder


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    atomic_write(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full; free some space and run the same command again"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_holds_a_folder(tmp_path: Path) -> None:
    folder = record(tmp_path)
    held = folder.lock()
    assert held is not None
    assert folder.lock() is None
    os.close(held)
    again = folder.lock()
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "/abs", "a\nb", "x" * 101])
def test_a_name_that_would_leave_the_results_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name for an experiment"):
        RunFolder(tmp_path, name, "abc")


def test_the_view_has_every_attempt(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "reason": None, "test_acc": 0.5, "train_s": 1.5, "train_loss": float("nan")})
    record(tmp_path, {"status": "diverged", "reason": "the loss is nan"}, seed=1)
    record(tmp_path, None, seed=2)
    found = results(tmp_path / "exp")
    runs = found.runs
    assert list(runs.columns) == [
        *IDENTITY,
        "test_acc",
        "reach",
        "variant",
        "primary_metric",
        "data_id",
        "tuned",
        "conditions",
        "net_settings",
    ]
    assert list(runs.status) == ["ok", "diverged", "interrupted"]
    assert runs.test_acc[0] == 0.5
    assert runs.test_acc[1:].isna().all()
    assert found.environments == {"e1": {"env_id": "e1", "cpu": "some"}}
    assert found.curves.empty


@pytest.mark.parametrize("level", ["", "exp", "exp/run"])
def test_a_user_may_point_at_any_level(tmp_path: Path, level: str) -> None:
    folder = record(tmp_path, {"status": "ok", "reason": None})
    assert len(results(tmp_path / level.replace("run", folder.run_id)).runs) == 1


def test_runs_that_differ_in_a_setting_are_told_apart(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "reason": None})
    record(tmp_path, {"status": "ok", "reason": None}, method_settings={"lr": 0.5})
    record(tmp_path, {"status": "ok", "reason": None}, method_settings={"lr": 0.5}, epochs=9)
    assert sorted(results(tmp_path).runs.variant) == ["epochs=2, lr=0.1", "epochs=2, lr=0.5", "epochs=9, lr=0.5"]


def test_protocols_are_told_apart_and_settings_within_each(tmp_path: Path) -> None:
    done = {"status": "ok", "reason": None}
    for change in ({"epochs": 4}, {"epochs": 40, "patience": 5}, {"epochs": 40, "patience": 5, "seed": 1}):
        record(tmp_path, done, **change)
    record(tmp_path, done, epochs=4, method_settings={"lr": 0.5})
    runs = results(tmp_path).runs
    assert runs.variant.tolist() == [
        "lr=0.1, protocol=matched", "lr=0.5, protocol=matched", "protocol=convergence", "protocol=convergence"
    ]  # fmt: skip
    assert runs.protocol.tolist() == ["matched"] * 2 + ["convergence"] * 2
    assert runs.budget.tolist() == ["4 epochs"] * 2 + ["patience 5 within 40 epochs"] * 2


def test_matched_budgets_are_told_apart(tmp_path: Path) -> None:
    for change in ({}, {"epochs": 9, "steps": 70}, {"epochs": 11, "steps": 80}, {"seconds": 1.5}):
        record(tmp_path, {"status": "ok", "reason": None}, **change)
    assert results(tmp_path).runs.variant.tolist() == [
        "budget=1.5 s within 2 epochs", "budget=70 steps", "budget=80 steps", "budget=epochs"
    ]  # fmt: skip


def test_runs_that_were_only_probed_stand_apart_from_those_that_were_trained(tmp_path: Path) -> None:
    """They change no label and supersede nothing, though made later and by newer code; alone, they are the runs."""
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 10.0, "test_acc": 0.5})
    for size in (32, 64):
        summary = {"status": "ok", "reason": None, "finished_at": 20.0}
        record(tmp_path, summary, batch_size=size, probe_only=True, method_source="edited")
    found = results(tmp_path)
    assert found.runs[["test_acc", "variant"]].to_numpy().tolist() == [[0.5, ""]]
    assert found.probed["variant"].tolist() == ["", "batch_size=32", "batch_size=64"]
    assert found.n_probed == 2
    assert found.n_older == 0
    assert {run_id: chosen["batch_size"] for run_id, chosen in found.settings.items()} == dict(
        zip(found.probed["run_id"], [64, 32, 64], strict=True)
    )
    alone = record(tmp_path / "alone", {"status": "ok", "reason": None}, probe_only=True)
    assert results(tmp_path / "alone").runs["run_id"].tolist() == [alone.run_id]


def test_what_a_search_has_chosen_is_no_variant_unless_it_is_all_that_differs(tmp_path: Path) -> None:
    """Two variants that were each searched are told apart by what they are, two searches of one by what they found."""
    for lr, decay in ((0.1, 0), (0.5, 1)):
        record(tmp_path, OK, tuned=("lr",), method_settings={"lr": lr, "decay": decay})
    assert list(results(tmp_path).runs.variant) == ["decay=0", "decay=1"]
    record(tmp_path, OK, tuned=("lr",), method_settings={"lr": 0.7, "decay": 1})
    assert list(results(tmp_path).runs.variant) == ["decay=0", "decay=1, lr=0.5", "decay=1, lr=0.7"]


def test_tuned_runs_are_a_row_of_their_own(tmp_path: Path) -> None:
    """In one folder: bench run, bench tune --save, bench run --tuned. Not each seed twice with two step sizes."""
    for seed in range(2):
        record(tmp_path, OK, seed=seed)
        record(tmp_path, OK, seed=seed, tuned=("lr",), method_settings={"lr": 0.5})
    runs = results(tmp_path).runs
    assert runs.groupby("variant")["seed"].agg(list).to_dict() == {"tuned=lr": [0, 1], "tuned=no": [0, 1]}


def test_a_run_that_is_repeated_to_measure_more_is_one_sample(tmp_path: Path) -> None:
    """Each seed once, with what every repeat has measured, its tables included."""
    for k, asked in enumerate([(), ("alignment",), ("read-out",)]):
        folder = record(tmp_path, {**OK, "test_acc": 0.5, "finished_at": float(k)}, instruments=asked)
        if asked:
            folder.write_table(asked[0], ("epoch", "x"), [{"epoch": 0, "x": k}])
    found = results(tmp_path)
    assert len(found.runs) == 1
    assert found.n_repeats == 2
    assert found.tables == ["alignment", "read-out"]
    assert found.table("alignment")["x"].tolist() == [1]


def test_repeats_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    record(tmp_path, {**OK, "test_acc": 0.5, "finished_at": 1.0})
    record(tmp_path, {**OK, "test_acc": 0.9, "finished_at": 2.0}, instruments=("alignment",))
    found = results(tmp_path)
    assert found.runs["test_acc"].tolist() == [0.9]
    assert found.unshown == ["left out: 1 run that repeat another and contradict it; the last one stands"]


def test_runs_over_changed_data_are_neither_pooled_nor_shown_beside_new_ones(tmp_path: Path) -> None:
    record(tmp_path, {**OK, "test_acc": 0.9, "finished_at": 1.0}, data_id="old")
    record(tmp_path, {**OK, "test_acc": 0.9, "finished_at": 1.0}, data_id="old", method="drtp")
    record(tmp_path, {**OK, "test_acc": 0.2, "finished_at": 2.0}, data_id="new", method="drtp")
    found = results(tmp_path)
    assert found.runs[["method", "test_acc"]].to_numpy().tolist() == [["drtp", 0.2]]
    assert found.n_other_data == 2
    everything = results(tmp_path, all_sources=True).runs
    assert everything.groupby("method")["variant"].agg(list).to_dict() == {
        "backprop": [""], "drtp": ["data=new", "data=old"]
    }  # fmt: skip
    assert everything.groupby("method")["data_id"].agg(list).to_dict() == {"backprop": ["old"], "drtp": ["new", "old"]}


def test_the_curve_comes_back(tmp_path: Path) -> None:
    folder = record(tmp_path, {"status": "ok", "reason": None})
    folder.write_curve([{"epoch": 1, "step": 3, "train_loss": 0.1, "val_acc": None, "train_s": 2.0}])
    curves = results(tmp_path).curves
    assert curves[["epoch", "step", "train_loss", "train_s"]].iloc[0].tolist() == [1, 3, 0.1, 2.0]
    assert curves.val_acc.isna().all()
    assert curves.method.tolist() == ["backprop"]


def test_metrics_of_rules_stand_behind_the_shared_columns_of_curves(tmp_path: Path) -> None:
    """Rules differ in them; where a rule or an epoch lacks one the cell is empty."""
    points = [{"epoch": 1, "step": 3, "rule_a": None}, {"epoch": 2, "step": 6, "rule_a": 0.5, "rule_b": nan}]
    record(tmp_path, {"status": "ok", "reason": None}).write_curve(points)
    record(tmp_path, {"status": "ok", "reason": None}, method="drtp").write_curve([{"epoch": 1, "step": 3}])
    curves = results(tmp_path).curves
    assert list(curves)[-2:] == ["rule_a", "rule_b"]
    assert curves.rule_a.dropna().tolist() == [0.5]
    assert curves.rule_b.isna().all()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("summary.json", b"{", "summary.json is corrupt"),
        ("summary.json", b"[]", "not an object"),
        ("summary.json", b'{"status": "fine"}', "'status': Input should be"),
        ("spec.json", b"{}", "'method': Field required"),
        (
            "spec.json",
            b'{"method": "m", "net": "n", "dataset": "d", "seed": 0, "epochs": 1, "batch_size": 2, "steps": "few"}',
            "'steps': Input should be a valid integer",
        ),
        ("curve.csv", b"a,b\n1,2\n", "curve.csv is corrupt"),
        ("curve.csv", b"", "curve.csv is corrupt"),
        ("curve.csv", f"{','.join([*CURVE, 'rule_a b'])}\n".encode(), "curve.csv is corrupt"),
        ("curve.csv", f"{','.join(['rule_a', *CURVE])}\n".encode(), "curve.csv is corrupt"),
        ("curve.csv", f"{','.join([*CURVE, 'rule_a'])}\n{',' * len(CURVE)}x\n".encode(), "'x' is no number"),
    ],
)
def test_a_corrupt_record_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    folder = record(tmp_path, {"status": "ok", "reason": None})
    (folder.path / name).write_bytes(content)
    with pytest.raises(StoreError, match=complaint) as error:
        _ = results(tmp_path).curves
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run records"):
        _ = results(tmp_path).runs
    with pytest.raises(StoreError, match="no such folder"):
        _ = results(tmp_path / "nowhere").runs


def test_the_checkpoint_goes_with_the_end_unless_the_run_can_go_on(tmp_path: Path) -> None:
    folder = record(tmp_path)
    for status, kept in (("interrupted", True), ("timeout", True), ("ok", False)):
        folder.save_checkpoint({"x": torch.ones(2)})
        folder.finish({"status": status, "reason": None})
        assert folder.checkpoint.exists() is kept


def test_a_checkpoint_cannot_smuggle_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("true",)

    folder = record(tmp_path)
    folder.save_checkpoint({"x": Evil()})
    with pytest.raises(StoreError, match="checkpoint.pt is corrupt"):
        folder.load_checkpoint()
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:100])
    with pytest.raises(StoreError, match="checkpoint.pt is corrupt"):
        folder.load_checkpoint()


def test_a_row_of_an_edited_method_gives_way_to_the_newest(tmp_path: Path) -> None:
    """For each net and data set by itself; what was made with the older source is counted, and shown if asked for."""
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 10.0, "test_acc": 0.1})
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 20.0, "test_acc": 0.2}, method_source="edited")
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 5.0, "test_acc": 0.3}, dataset="mnist")
    newest = results(tmp_path)
    assert sorted(newest.runs.test_acc) == [0.2, 0.3]
    assert newest.n_older == 1
    everything = results(tmp_path, all_sources=True)
    assert len(everything.runs) == 3
    assert everything.n_older == 0


def test_a_net_that_was_edited_counts_like_a_method(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 10.0})
    record(tmp_path, {"status": "ok", "reason": None, "finished_at": 20.0}, net_source="edited")
    assert results(tmp_path).n_older == 1


def test_records_that_do_not_know_when_they_ended_are_all_kept(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "reason": None})
    record(tmp_path, {"status": "ok", "reason": None}, method_source="edited")
    assert len(results(tmp_path).runs) == 2


def test_columns_that_a_record_declares_are_read_without_the_instrument(tmp_path: Path) -> None:
    folder = record(tmp_path, {"status": "ok", "reason": None, "weight_norm": 2.5})
    folder.write_columns([Column("weight_norm", "norm", "length of the weights")])
    found = results(tmp_path)
    assert [column.name for column in found.columns] == ["test_acc", "reach", "weight_norm"]
    assert found.runs.weight_norm.tolist() == [2.5]


def test_a_table_of_a_run_comes_back_with_what_names_the_run(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "reason": None}).write_table(
        "angles", ("layer", "cosine"), [{"layer": "a", "cosine": 0.5}]
    )
    record(tmp_path, {"status": "ok", "reason": None}, seed=1)
    found = results(tmp_path)
    assert found.tables == ["angles"]
    table = found.table("angles")
    assert table[["method", "seed", "layer", "cosine"]].to_numpy().tolist() == [["backprop", 0, "a", 0.5]]
    assert found.table("nothing").empty


def test_a_thousand_runs_are_read_in_two_seconds(tmp_path: Path) -> None:
    for seed in range(1000):
        folder = record(tmp_path, None, seed=seed)
        (folder.path / "summary.json").write_text('{"status": "ok", "reason": null, "test_acc": 0.5}')
    began = time.perf_counter()
    found = results(tmp_path)
    assert len(found.runs) == 1000
    assert found.curves.empty
    assert time.perf_counter() - began < 2


def test_runs_on_other_training_batches_are_no_pair(tmp_path: Path) -> None:
    """Conditions are what a run and its twin share; a record from before a setting was there has it at its default."""
    old = record(tmp_path, {"status": "ok", "reason": None}).path / "spec.json"
    kept = json.loads(old.read_text())
    old.write_text(json.dumps({k: v for k, v in kept.items() if k not in ("transforms", "transformed_by", "data_on")}))
    record(tmp_path, {"status": "ok", "reason": None}, seed=1)
    record(tmp_path, {"status": "ok", "reason": None}, seed=2, transforms=["crop"])
    record(tmp_path, {"status": "ok", "reason": None}, seed=3, transforms=["mine"], transformed_by={"mine": "a"})
    record(tmp_path, {"status": "ok", "reason": None}, seed=4, transforms=["mine"], transformed_by={"mine": "b"})
    before, at_default, *others = results(tmp_path).runs.sort_values("seed").conditions
    assert before == at_default
    assert len({before, *others}) == 4
