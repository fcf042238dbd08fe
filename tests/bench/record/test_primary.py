"""Which metric judges a record, and which columns of metrics are shown."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.api.column import Column
from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.record.primary import Primary
from bench.record.results import Results
from bench.record.searches import Found, Trial
from tests.bench.record.test_results import record

OURS = tuple(Catalog().columns())
SCORE = {"name": "test_score", "title": "test score", "what": "a score", "metric": "score", "better": "lower"}
LOWER = Primary(Column("test_rmse", "test RMSE", "", better="lower", bounds=(0.0, None)))


def read(root: Path, **options: Any) -> Results:
    return Results(root, columns=OURS, **options)


def test_a_record_without_a_primary_metric_is_judged_by_accuracy(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "test_acc": 0.9, "val_acc": 0.8})
    results = read(tmp_path)
    assert [column.name for column in results.columns if column.metric] == [
        "test_acc",
        "test_acc_std",
        "test_acc_noise_free",
        "val_acc",
    ]
    assert results.columns[0].shown == "terminal"
    assert [primary.test for primary in results.primaries] == ["test_acc"]


def test_secondary_metrics_have_columns_where_a_record_holds_them(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "test_acc": 0.9, "test_nll": 0.2, "val_nll": 0.3, "test_ece": None})
    shown = {column.name: column.shown for column in read(tmp_path).columns if column.metric}
    assert list(shown) == ["test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "test_nll", "val_nll"]
    assert (shown["test_nll"], shown["val_nll"]) == ("page", "csv")


def test_the_primary_metric_stands_first_and_in_the_terminal(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "primary_metric": "rmse", "test_rmse": 50.0, "val_rmse": 55.0, "test_r2": 0.5})
    results = read(tmp_path)
    assert [column.name for column in results.columns[:5]] == [
        "test_rmse",
        "test_rmse_std",
        "test_rmse_noise_free",
        "val_rmse",
        "test_r2",
    ]
    assert [column.shown for column in results.columns[:5]] == ["terminal", "csv", "terminal", "csv", "page"]
    assert list(results.runs["primary_metric"]) == ["rmse"]


def test_what_has_not_ended_is_judged_as_its_peers(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "primary_metric": "rmse", "test_rmse": 50.0})
    record(tmp_path, seed=1)
    assert list(read(tmp_path).runs["primary_metric"]) == ["rmse", "rmse"]


def test_a_metric_from_elsewhere_is_declared_by_its_record(tmp_path: Path) -> None:
    folder = record(tmp_path, {"status": "ok", "primary_metric": "score", "test_score": 3.0, "val_score": 2.0})
    with pytest.raises(Exception, match="no column declares the metric 'score'; name its file with --plugin"):
        read(tmp_path).primaries  # noqa: B018  # a property that raises
    folder.write_json("columns.json", [{**asdict(Column("", "", "")), **SCORE}])
    (primary,) = read(tmp_path).primaries
    assert (primary.test, primary.val, primary.higher, primary.word) == ("test_score", "val_score", False, "score")


def test_repeats_with_other_metrics_are_one_run(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "test_acc": 0.9, "val_acc": 0.8, "finished_at": 1.0})
    record(tmp_path, {"status": "ok", "primary_metric": "acc", "test_acc": 0.9, "val_acc": 0.8, "test_top5": 0.99,
                      "finished_at": 2.0}, metrics=("accuracy", "top-5"))  # fmt: skip
    results = read(tmp_path)
    assert results.n_repeats == 1
    assert results.runs["test_top5"].tolist() == [0.99]


def test_rows_of_two_primary_metrics_are_rows_apart(tmp_path: Path) -> None:
    record(tmp_path, {"status": "ok", "primary_metric": "acc", "test_acc": 0.9})
    record(tmp_path, {"status": "ok", "primary_metric": "nll", "test_acc": 0.9, "test_nll": 0.2}, metrics=("nll",))
    variants = read(tmp_path).runs.set_index("primary_metric")["variant"]
    assert variants.to_dict() == {"acc": "primary_metric=acc", "nll": "primary_metric=nll"}


@pytest.mark.parametrize(("fraction", "told"), [(0.01, "1% of backprop's"), (0.005, "0.5% of backprop's")])
def test_a_difference_of_a_metric_without_a_greatest_value_is_relative(fraction: float, told: str) -> None:
    assert LOWER.size_words(fraction, "backprop's") == told
    assert LOWER.size(fraction, 50.0) == 50 * fraction
    assert (LOWER.told("lower"), LOWER.told("higher"), LOWER.told("equivalent")) == (
        "lower (better)",
        "higher (worse)",
        "equivalent",
    )


def test_a_search_from_before_there_were_metrics_is_one_of_accuracies() -> None:
    trial = {"settings": {}, "val_acc": 0.5, "status": "ok", "stage": "spread", "train_s": 1.0}
    assert Trial.model_validate(trial).value == 0.5
    names = {
        "method": "backprop",
        "net": "mlp",
        "dataset": "digits",
        "variant": "",
        "sampler": "s",
        "verdict": "solved",
    }
    counts = {"verdict": "solved", "n_trials": 1, "epochs": 1, "reported_epochs": 1, "batch_size": 32, "seed": 0}
    settings: dict[str, Any] = {name: {} for name in ("fixed", "net_settings", "best", "declared", "searched")}
    unknown = dict.fromkeys(("date", "commit", "source"))
    row = {**names, **counts, **settings, **unknown, "val_acc": 0.5, "at_chance": 0.1, "tried": [trial]}
    found = Found.model_validate(row)
    assert (found.value, found.primary.key, found.tried[0].value) == (0.5, "acc", 0.5)
    assert Found.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValueError, match="7 is no accuracy"):
        Found.model_validate({**row, "tried": [{**trial, "val_acc": 7}]})
    errors = {**row, "judged_by": asdict(LOWER.column), "val_acc": 50.0, "tried": [{**trial, "val_acc": 60.0}]}
    assert Found.model_validate(errors).primary == LOWER


def test_a_target_is_given_as_tables_show_it(tmp_path: Path) -> None:
    record(tmp_path / "a", {"status": "ok", "test_acc": 0.9})
    record(tmp_path / "b", {"status": "ok", "primary_metric": "rmse", "test_rmse": 50.0})
    record(tmp_path / "c", {"status": "ok", "test_acc": 0.9})
    record(tmp_path / "c", {"status": "ok", "primary_metric": "rmse", "test_rmse": 50.0}, dataset="diabetes")
    assert read(tmp_path / "a").target_of(95) == 0.95
    assert read(tmp_path / "b").target_of(50) == 50
    with pytest.raises(ConfigError, match="--target 101: accuracy is from 0 to 100"):
        read(tmp_path / "a").target_of(101)
    with pytest.raises(ConfigError, match="judged by accuracy, RMSE; choose runs of one metric with --select"):
        read(tmp_path / "c").target_of(50)
