"""The search: the same effort for everybody, never a look at the test split, nothing hidden that was not solved."""

import math
from collections import Counter
from typing import Any

import pytest

from bench.experiment.config import Experiment
from bench.experiment.plan import Run
from bench.search.search import at_chance, conduct, tuned
from tests.bench.search.made import CHANCE, asked, begun, executor, peak_at, planned, searched


@pytest.mark.parametrize("best", [1e-4, 3e-4, 1e-3, 1e-2])
def test_the_best_value_is_approached_and_solved(best: float) -> None:
    (row,) = searched(asked("backprop"), executor(peak_at(best)))
    assert row.best is not None
    assert row.best.settings["lr"] == pytest.approx(best, rel=1.0)
    assert (row.verdict, len(row.tried), row.space) == ("solved", 12, row.declared)


def test_everybody_has_the_same_trials_at_the_reported_length_and_none_sees_the_test_split() -> None:
    seen: list[Run] = []
    experiment = asked("backprop", "feedback-alignment", instruments=("alignment",), tune={"trials": 7, "seed": 77})
    searched(experiment, executor(peak_at(1e-3), seen))
    assert Counter(run.spec.method for run in seen) == {"backprop": 7, "feedback-alignment": 7}
    assert {(r.spec.seed, r.spec.epochs, r.spec.eval_draws, r.spec.instruments) for r in seen} == {(77, 20, 0, ())}
    assert len({run.spec.run_id for run in seen}) == 14
    first = {m: [r.spec.method_settings["lr"] for r in seen if r.spec.method == m][:4] for m in experiment.methods}
    assert first["backprop"] == first["feedback-alignment"]


@pytest.mark.parametrize("trials", [2, 3, 8, 13])
def test_the_number_of_trials_is_that_which_was_asked_for(trials: int) -> None:
    (row,) = searched(asked("backprop", tune={"trials": trials}), executor(lambda s: 0.5 - abs(s["lr"] - 1e-3)))
    assert sum(trial.stage != "widened" for trial in row.tried) == trials


@pytest.mark.parametrize(("best", "side"), [(0.5, "high"), (1e-7, "low")])
def test_a_peak_beyond_the_range_is_found_by_widening_it(best: float, side: str) -> None:
    (row,) = searched(asked("backprop"), executor(peak_at(best)))
    assert row.best is not None
    assert row.best.settings["lr"] == pytest.approx(best, rel=2.0)
    assert row.best.stage == "widened"
    grown, kept = (row.space["lr"].high, row.space["lr"].low) if side == "high" else (row.space["lr"].low, 0.1)
    assert (grown > 0.1) == (side == "high")
    assert (grown < 1e-5) == (side == "low")
    assert kept == (1e-5 if side == "high" else 0.1)
    assert len(row.tried) in (16, 20)


def test_a_peak_that_no_widening_reaches_is_not_solved() -> None:
    (row,) = searched(asked("backprop"), executor(peak_at(1e4)))
    assert (row.verdict, len(row.tried)) == ("edge", 20)
    assert row.space["lr"].high == pytest.approx(10.0)
    assert row.space["lr"].low == 1e-5
    assert row.open_ends() == [("lr", "high")]


def test_chance_everywhere_is_not_solved_after_widening_both_ends() -> None:
    (row,) = searched(asked("backprop"), executor(lambda _: CHANCE))
    assert (row.verdict, len(row.tried)) == ("chance", 20)
    assert (row.space["lr"].low, row.space["lr"].high) == pytest.approx((1e-7, 10.0))


def test_chance_is_a_share_of_the_classes_and_three_standard_errors() -> None:
    """Of a fair coin thrown a hundred times the standard error is a twentieth."""
    assert at_chance(2, 100) == pytest.approx(0.5 + 3 * 0.05)


def test_failed_trials_are_kept_and_lose() -> None:
    (row,) = searched(asked("backprop"), executor(peak_at(1.0, failing_above=1e-3)))
    assert row.best is not None
    assert row.best.settings["lr"] <= 1e-3
    failed = [trial for trial in row.tried if trial.status == "diverged"]
    assert failed
    assert all(trial.value is None and trial.settings["lr"] > 1e-3 for trial in failed)
    assert {score for point, score in row.scored() if point["lr"] > 1e-3} == {0.0}


def test_where_all_fail_the_default_stays_and_it_is_said() -> None:
    experiment = asked("backprop")
    (row,) = searched(experiment, executor(lambda _: None))
    assert (row.best, row.verdict, len(row.tried)) == (None, "failed", 20)
    runs = planned(experiment)
    assert [run.spec for run in tuned(runs, [row])] == [run.spec for run in runs]


def test_a_method_that_refuses_the_task_is_not_asked_again() -> None:
    (row,) = searched(asked("backprop"), lambda runs: [{"status": "skipped", "reason": "no"} for _ in runs])
    assert (row.verdict, len(row.tried)) == ("refused", 6)


def test_a_search_that_was_killed_goes_on_with_the_same_trials() -> None:
    """Finished runs are kept by the executor; whenever the kill came, the same runs are asked for in all."""
    experiment = asked("backprop", "spsa")
    whole: list[Run] = []
    searched(experiment, executor(peak_at(0.5), whole))
    wanted = Counter(run.spec.run_id for run in whole)
    assert max(wanted.values()) == 1
    for n_before in (0, 5, 13, 30):
        done: set[str] = set()

        def until_killed(runs: list[Run], done: set[str] = done, limit: int = n_before) -> list[dict[str, Any] | None]:
            summaries = executor(peak_at(0.5))(runs)
            for k, run in enumerate(runs):
                if run.spec.run_id not in done and len(done) >= limit:
                    summaries[k] = None
                else:
                    done.add(run.spec.run_id)
            return summaries

        rows, tuning = begun(experiment)
        assert not conduct(rows, tuning, until_killed)
        again: list[Run] = []
        searched(experiment, executor(peak_at(0.5), again))
        assert done <= set(wanted)
        assert Counter(run.spec.run_id for run in again) == wanted


def test_several_settings_are_searched_at_once() -> None:
    def score(s: dict[str, Any]) -> float:
        lr, eta = math.log10(s["lr"] / 1e-3), math.log10(s["eta"] / 1.0)
        return 1 - (abs(lr) + abs(eta)) / 10

    experiment = Experiment(methods=["noprop-dt"], tune={"settings": "all", "trials": 24})
    (row,) = searched(experiment, executor(score))
    assert row.best is not None
    assert set(row.best.settings) == {"lr", "eta"}
    assert (row.best.value or 0) > 0.9
    (first, *_) = tuned(planned(experiment), [row])
    assert first.spec.tuned == ("eta", "lr")
    assert first.spec.method_settings["eta"] == row.best.settings["eta"]


def test_every_seed_runs_with_what_was_found() -> None:
    experiment = asked("backprop", "feedback-alignment")
    rows = searched(experiment, executor(peak_at(1e-2)))
    runs = planned(experiment)
    after = tuned(runs, rows)
    assert [(r.spec.method, r.spec.seed, r.spec.epochs) for r in after] == [
        (r.spec.method, r.spec.seed, r.spec.epochs) for r in runs
    ]
    assert {r.spec.method_settings["lr"] for r in after} == {row.best.settings["lr"] for row in rows if row.best}


def test_each_variant_of_a_method_has_a_search_of_its_own() -> None:
    variants = {"feedback-alignment": [{"mode": "fa"}, {"mode": "usf"}]}
    experiment = asked("backprop", "feedback-alignment", variants=variants, seeds=[0])
    best = {None: 1e-3, "fa": 1e-2, "usf": 1e-4}
    rows = searched(experiment, executor(lambda s: peak_at(best[s.get("mode")])(s)))
    found = [run.spec.method_settings["lr"] for run in tuned(planned(experiment), rows)]
    assert found == pytest.approx([1e-3, 1e-2, 1e-4], rel=1.0)


def test_a_shorter_trial_is_as_short_as_was_asked_for() -> None:
    seen: list[Run] = []
    searched(asked("backprop", tune={"trials": 2, "epochs": {"digits": 3}}), executor(peak_at(1e-3), seen))
    assert {run.spec.epochs for run in seen} == {3}


def test_the_tuning_seed_is_never_reported() -> None:
    with pytest.raises(ValueError, match="the tuning seed 3 is among the seeds to report"):
        Experiment(methods=["a"], seeds=[3], tune={"seed": 3})
    with pytest.raises(ValueError, match="needs validation data"):
        Experiment(methods=["a"], tune={}, val_fraction=0)
    with pytest.raises(ValueError, match="choose one"):
        Experiment(methods=["a"], tune={}, tuned=True)
