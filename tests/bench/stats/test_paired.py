"""Differences to backprop against samples worked by hand."""

import json
import math

import pandas as pd
import pytest

from bench.stats import paired_differences


def frame(*runs: tuple[str, str, int, str, float], net: str = "mlp") -> pd.DataFrame:
    """Runs on one data set, given as (method, variant, seed, status, test_acc)."""
    columns = ["method", "variant", "seed", "status", "test_acc"]
    runs_of = pd.DataFrame(runs, columns=columns).assign(dataset="digits", net=net, net_settings="{}")
    return runs_of.assign(protocol="matched", data_id="d", tuned="", conditions="")


def test_pairs_cancel_what_the_seeds_have_in_common() -> None:
    """Seeds that differ by 0.3 among themselves but by exactly 0.1 from their twins: no spread is left."""
    runs = frame(
        ("backprop", "", 0, "ok", 0.6),
        ("backprop", "", 1, "ok", 0.9),
        ("spsa", "", 1, "ok", 0.8),
        ("spsa", "", 0, "ok", 0.5),
    )
    (row,) = paired_differences(runs, 0.01).to_dict("records")
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
    (row,) = paired_differences(runs, 0.01).to_dict("records")
    assert row["n_pairs"] == 1
    assert row["test_acc_diff_mean"] == pytest.approx(0.2)
    assert math.isnan(row["test_acc_diff_ci95"])


@pytest.mark.parametrize(
    ("of_backprop", "twin"),
    [(["", "T=5"], "T=5"), (["", "lr=1"], ""), (["lr=1"], "lr=1"), (["lr=1", "lr=2"], None), ([], None)],
)
def test_the_twin_is_the_nearest_form_of_backprop(of_backprop: list[str], twin: str | None) -> None:
    runs = frame(("spsa", "T=5", 0, "ok", 0.5), *(("backprop", variant, 0, "ok", 0.5) for variant in of_backprop))
    (row,) = paired_differences(runs, 0.01).to_dict("records")
    assert row["twin_variant"] == twin or (twin is None and pd.isna(row["twin_variant"]))
    assert row["n_pairs"] == (twin is not None)


def test_the_twin_has_the_same_net_settings_whatever_sets_variants_apart() -> None:
    """Two widths of backprop, one of the rule, whose label therefore tells no width."""
    runs = frame(
        ("backprop", "width=8", 0, "ok", 0.5), ("backprop", "width=9", 0, "ok", 0.9), ("spsa", "", 0, "ok", 0.6)
    ).assign(net_settings=['{"width": 8}', '{"width": 9}', '{"width": 8}'])  # fmt: skip
    (row,) = paired_differences(runs, 0.01).to_dict("records")
    assert row["twin_variant"] == "width=8"
    assert row["test_acc_diff_mean"] == pytest.approx(0.1)


def test_the_twin_is_of_the_same_protocol() -> None:
    """Matched +0.1, own convergence -0.2; a variant has the one form of backprop under its protocol."""
    variants = {"matched": "protocol=matched", "convergence": "protocol=convergence"}
    runs = pd.concat(
        frame(
            ("backprop", variants[protocol], 0, "ok", 0.5),
            ("spsa", variants[protocol], 0, "ok", accuracy),
            ("spsa", f"k=2, {variants[protocol]}", 0, "ok", accuracy),
        ).assign(protocol=protocol)
        for protocol, accuracy in (("matched", 0.6), ("convergence", 0.3))
    )
    found = paired_differences(runs, 0.01).set_index("variant")["test_acc_diff_mean"].round(9).to_dict()
    assert found == {
        "protocol=matched": 0.1, "k=2, protocol=matched": 0.1,
        "protocol=convergence": -0.2, "k=2, protocol=convergence": -0.2,
    }  # fmt: skip


def test_backprop_on_another_net_is_no_twin() -> None:
    runs = pd.concat([frame(("backprop", "", 0, "ok", 0.6), net="cnn"), frame(("spsa", "", 0, "ok", 0.5))])
    assert paired_differences(runs, 0.01)["n_pairs"].tolist() == [0]


@pytest.mark.parametrize(
    ("ours", "theirs", "paired"),
    [
        ({"batch_size": 32}, {"batch_size": 32}, True),
        ({"batch_size": 32}, {"batch_size": 16}, False),
        ({"threads": 1, "steps": None}, {"threads": 1, "steps": 5}, False),
        ({"numerics": 3}, {}, True),
        ({"numerics": 3}, {"numerics": 2}, False),
    ],
)
def test_no_pair_under_other_conditions(ours: dict[str, int], theirs: dict[str, int], paired: bool) -> None:
    """Backprop in batches of 16 once stood as the twin of a rule in batches of 32, because no other form had run."""
    rows = frame(("backprop", "", 0, "ok", 0.9), ("drtp", "", 0, "ok", 0.8))
    rows["conditions"] = [json.dumps(theirs), json.dumps(ours)]
    assert bool(paired_differences(rows, 0.01)["test_acc_diff_mean"].notna().all()) == paired
