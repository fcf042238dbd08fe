"""The search: the same number of trials for everybody, and never a look at the test split."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.spec import tune
from bench.spec.config import Experiment, Tuning
from bench.spec.plan import Run, check, plan

CATALOG = Catalog()
DIGITS = load(CATALOG.dataset("digits"))


def planned(*methods: str) -> list[Run]:
    asked = Experiment(methods=list(methods), net="mlp", seeds=[0, 1], epochs=20, instruments=("alignment",))
    check(asked, CATALOG)
    return plan(asked, CATALOG, device="cpu", datasets={"digits": DIGITS})


def peak_at(best: float, failing_above: float = float("inf")) -> Callable[[list[Run]], list[dict[str, Any]]]:
    """An executor whose validation accuracy is highest at `best`, in log scale."""
    import math

    def execute(runs: list[Run]) -> list[dict[str, Any]]:
        rates = [run.spec.method_settings["lr"] for run in runs]
        return [
            {"status": "diverged"}
            if lr > failing_above
            else {"status": "ok", "val_acc": 1 - abs(math.log10(lr / best)) / 10}
            for lr in rates
        ]

    return execute


def test_the_grid_has_equal_ratios() -> None:
    assert tune.log_grid(1e-5, 1e-1, 5) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert tune.log_grid(1e-4, 1e-2, 1) == [1e-3]


@pytest.mark.parametrize("best", [1e-5, 3e-4, 1e-3, 4e-2, 1e-1])
def test_the_best_value_is_approached(best: float) -> None:
    (found,) = tune.search(planned("backprop"), Tuning(trials=8), peak_at(best)) or []
    assert len(found.tried) == 8
    assert found.best == pytest.approx(best, rel=1.2)


def test_everybody_has_the_same_number_of_trials_and_none_sees_the_test_split() -> None:
    seen: list[Run] = []

    def execute(runs: list[Run]) -> list[dict[str, Any]]:
        seen.extend(runs)
        return peak_at(1e-3)(runs)

    tuning = Tuning(trials=7, epochs=2, seed=77)
    tune.search(planned("backprop", "feedback-alignment"), tuning, execute)
    names = [run.spec.method for run in seen]
    assert names.count("backprop") == names.count("feedback-alignment") == 7
    assert {(r.spec.seed, r.spec.epochs, r.spec.eval_draws, r.spec.instruments) for r in seen} == {(77, 2, 0, ())}
    assert len({run.spec.run_id for run in seen}) == 14


def test_failed_trials_lose_and_where_all_fail_the_default_stays() -> None:
    runs = planned("backprop")
    (found,) = tune.search(runs, Tuning(trials=6), peak_at(1.0, failing_above=1e-3)) or []
    assert found.best is not None
    assert found.best <= 1e-3
    nowhere = tune.search(runs, Tuning(trials=6), peak_at(1.0, failing_above=0.0)) or []
    assert nowhere[0].best is None
    assert [run.spec for run in tune.tuned(runs, nowhere)] == [run.spec for run in runs]


def test_every_seed_runs_with_what_was_found() -> None:
    runs = planned("backprop", "feedback-alignment")
    searches = tune.search(runs, Tuning(trials=4), peak_at(1e-2)) or []
    after = tune.tuned(runs, searches)
    assert [(r.spec.method, r.spec.seed, r.spec.epochs) for r in after] == [
        (r.spec.method, r.spec.seed, r.spec.epochs) for r in runs
    ]
    assert {r.spec.method_settings["lr"] for r in after} == {s.best for s in searches}


def test_each_variant_of_a_method_has_a_search_of_its_own() -> None:
    asked = Experiment(
        methods=["backprop", "feedback-alignment"],
        net="mlp",
        variants={"feedback-alignment": [{"mode": "fa"}, {"mode": "usf"}]},
    )
    check(asked, CATALOG)
    runs = plan(asked, CATALOG, device="cpu", datasets={"digits": DIGITS})
    assert [run.spec.method_settings.get("mode") for run in runs] == [None, "fa", "usf"]

    def execute(trials: list[Run]) -> list[dict[str, Any]]:
        best = {None: 1e-3, "fa": 1e-2, "usf": 1e-4}
        return [peak_at(best[run.spec.method_settings.get("mode")])([run])[0] for run in trials]

    searches = tune.search(runs, Tuning(trials=7), execute) or []
    found = [run.spec.method_settings["lr"] for run in tune.tuned(runs, searches)]
    assert found == pytest.approx([1e-3, 1e-2, 1e-4], rel=1.0)
    assert [row["variant"] for row in tune.as_rows(searches)] == ["", "mode=fa", "mode=usf"]


def test_a_stopped_search_decides_nothing() -> None:
    assert tune.search(planned("backprop"), Tuning(), lambda runs: [None] * len(runs)) is None


def test_a_method_without_a_range_is_named() -> None:
    with pytest.raises(ConfigError, match="backprop declares no search range for 'weight_decay'"):
        tune.search(planned("backprop"), Tuning(setting="weight_decay"), peak_at(1))


def test_what_was_found_is_told_in_rows() -> None:
    searches = tune.search(planned("backprop"), Tuning(trials=3), peak_at(1e-3)) or []
    (row,) = tune.as_rows(searches)
    assert (row["method"], row["best"], len(row["tried"])) == ("backprop", searches[0].best, 3)


def test_the_tuning_seed_is_never_reported() -> None:
    with pytest.raises(ValueError, match="the tuning seed 3 is among the seeds to report"):
        Experiment(methods=["a"], seeds=[3], tune=Tuning(seed=3))
    with pytest.raises(ValueError, match="needs validation data"):
        Experiment(methods=["a"], tune=Tuning(), val_fraction=0)
