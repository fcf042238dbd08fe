"""Statistics against samples worked by hand."""

import math

import pandas as pd
import pytest

from bench.stats import count_runs, paired_differences, t_interval


def frame(*runs: tuple[str, str, int, str, float], net: str = "mlp") -> pd.DataFrame:
    """Runs on one data set, given as (method, variant, seed, status, test_acc)."""
    columns = ["method", "variant", "seed", "status", "test_acc"]
    return pd.DataFrame(runs, columns=columns).assign(dataset="digits", net=net)


def test_interval_of_a_sample_worked_by_hand() -> None:
    """1..5: s^2 = 10/4, and Student's table has t(0.975; 4) = 2.776."""
    mean, half_width, n = t_interval([1, 2, 3, 4, 5])
    assert (mean, n) == (3, 5)
    assert half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=2e-4)


def test_two_values_pay_for_their_one_degree_of_freedom() -> None:
    """0 and 2: s = sqrt(2), so the half-width is t(0.975; 1) itself, which is tan(0.475 pi)."""
    assert t_interval([0, 2]).half_width == pytest.approx(math.tan(0.475 * math.pi))


@pytest.mark.parametrize(("values", "mean", "n"), [([], math.nan, 0), ([0.5], 0.5, 1), ([math.nan, 0.5], 0.5, 1)])
def test_fewer_than_two_values_have_no_interval(values: list[float], mean: float, n: int) -> None:
    interval = t_interval(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.half_width)
    assert interval.n == n


def test_failures_are_counted_by_status() -> None:
    runs = frame(
        ("spsa", "", 0, "ok", 0.9),
        ("spsa", "", 1, "oom", math.nan),
        ("spsa", "", 2, "diverged", math.nan),
        ("spsa", "", 3, "diverged", math.nan),
        ("spsa", "T=5", 0, "ok", 0.8),
    )
    assert count_runs(runs)[["variant", "n_ok", "n_runs", "failures"]].to_numpy().tolist() == [
        ["", 1, 4, "2 diverged, 1 oom"],
        ["T=5", 1, 1, ""],
    ]


def test_pairs_cancel_what_the_seeds_have_in_common() -> None:
    """Seeds that differ by 0.3 among themselves but by exactly 0.1 from their twins: no spread is left."""
    runs = frame(
        ("backprop", "", 0, "ok", 0.6),
        ("backprop", "", 1, "ok", 0.9),
        ("spsa", "", 1, "ok", 0.8),
        ("spsa", "", 0, "ok", 0.5),
    )
    (row,) = paired_differences(runs).to_dict("records")
    assert row["n_pairs"] == 2
    assert row["test_acc_diff_mean"] == pytest.approx(-0.1)
    assert row["test_acc_diff_ci95"] == pytest.approx(0, abs=1e-12)


def test_a_failed_run_takes_its_twin_out_of_the_pairs() -> None:
    runs = frame(
        ("backprop", "", 0, "ok", 0.5),
        ("backprop", "", 1, "ok", 0.9),
        ("backprop", "", 2, "crashed", 0.9),
        ("spsa", "", 0, "ok", 0.7),
        ("spsa", "", 1, "diverged", 0.1),
        ("spsa", "", 2, "ok", 0.7),
    )
    (row,) = paired_differences(runs).to_dict("records")
    assert row["n_pairs"] == 1
    assert row["test_acc_diff_mean"] == pytest.approx(0.2)
    assert math.isnan(row["test_acc_diff_ci95"])


@pytest.mark.parametrize(
    ("of_backprop", "twin"),
    [(["", "T=5"], "T=5"), (["", "lr=1"], ""), (["lr=1"], "lr=1"), (["lr=1", "lr=2"], None), ([], None)],
)
def test_the_twin_is_the_nearest_form_of_backprop(of_backprop: list[str], twin: str | None) -> None:
    runs = frame(("spsa", "T=5", 0, "ok", 0.5), *(("backprop", variant, 0, "ok", 0.5) for variant in of_backprop))
    (row,) = paired_differences(runs).to_dict("records")
    assert row["twin_variant"] == twin or (twin is None and pd.isna(row["twin_variant"]))
    assert row["n_pairs"] == (twin is not None)


def test_backprop_on_another_net_is_no_twin() -> None:
    runs = pd.concat([frame(("backprop", "", 0, "ok", 0.6), net="cnn"), frame(("spsa", "", 0, "ok", 0.5))])
    assert paired_differences(runs)["n_pairs"].tolist() == [0]
