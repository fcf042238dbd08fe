"""Rows of different primary metrics: each is judged by its own, and none is compared with another's."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.record.primary import arranged, primaries
from bench.record.schema import CURVE, KEY
from bench.report.blocks import Heading, Picture, Text
from bench.report.latex import results_tex
from bench.report.sections import SECTIONS, accuracy, answer, curves
from bench.report.summary import results_table
from bench.stats import costs_to_target, interquartile_means, paired_differences
from tests.bench.report.made import CATALOG, Made, frame, run

COLUMNS = arranged(CATALOG.columns(), {"acc", "rmse"}, ())
ACC, RMSE = primaries(("rmse", "acc"), COLUMNS)
ERRORS = {"backprop": 50.0, "spsa": 60.0, "drtp": 40.0}


def of_errors(method: str, seed: int) -> dict[str, Any]:
    """A run on values: backprop has an RMSE of 50, spsa of 60, drtp of 40, a tenth more each seed."""
    nothing = {"test_acc": np.nan, "test_acc_noise_free": np.nan}
    value = ERRORS[method] + 0.1 * seed + 0.01 * (method == "spsa") * seed**2
    judged = {"primary_metric": "rmse", "test_rmse": value, "test_rmse_noise_free": value, "val_rmse": value}
    return run(method, "diabetes", seed) | nothing | judged


def runs_of(*rows: dict[str, Any]) -> pd.DataFrame:
    names = [row.get("primary_metric", "acc") for row in rows]
    return frame(rows, COLUMNS).assign(primary_metric=names)


def errors() -> pd.DataFrame:
    return runs_of(*(of_errors(method, seed) for method in ERRORS for seed in range(4)))


def both() -> pd.DataFrame:
    accuracies = [run(method, "digits", seed) for method in ("backprop", "spsa") for seed in range(4)]
    return runs_of(*accuracies, *(of_errors(method, seed) for method in ERRORS for seed in range(4)))


def curve(runs: pd.DataFrame) -> pd.DataFrame:
    points = [
        {
            **line,
            "epoch": e,
            "step": 10 * e,
            "train_loss": 1 / e,
            "train_s": e,
            "val_rmse": line["test_rmse"] + 30 / e**2,
        }
        for line in runs[[*KEY, "test_rmse"]].to_dict("records")
        for e in (1, 2, 3)
    ]
    return pd.DataFrame(points, columns=[*KEY, *CURVE, "val_rmse"])


def made(runs: pd.DataFrame) -> Made:
    return Made(runs, curve(runs), columns=COLUMNS)


def test_lower_is_better_where_the_metric_says_so() -> None:
    rows = paired_differences(errors(), 0.01, [RMSE]).set_index("method")
    assert rows["test_rmse_diff_mean"].round().to_dict() == {"spsa": 10, "drtp": -10}
    assert rows.loc["spsa", "conclusion"] == "higher (worse)"
    assert "lower (better)" in rows.loc["drtp", "conclusion"]


def test_a_margin_of_a_metric_without_a_greatest_value_is_a_part_of_backprops() -> None:
    near = runs_of(*(of_errors("backprop", seed) for seed in range(4)), *(
        {**of_errors("spsa", seed), "test_rmse": 50.0 + 0.1 * seed + 0.2 * (1 + seed % 2)} for seed in range(4)
    ))  # fmt: skip
    (row,) = paired_differences(near, 0.02, [RMSE]).to_dict("records")
    assert row["conclusion"].endswith("by less than 2% of backprop's")
    (row,) = paired_differences(near, 0.001, [RMSE]).to_dict("records")
    assert "backprop's" not in row["conclusion"]


def test_the_answer_names_the_lowest_error() -> None:
    texts = [block.text for block in answer.section(made(errors())) if hasattr(block, "text")]
    (told,) = [text for text in texts if text.startswith("**diabetes")]
    assert "is **drtp (denoiser)** with 40.1 ± 0.2 test RMSE, 10 below backprop on the same net (lower (better)" in told


def test_a_target_is_reached_from_above() -> None:
    runs = errors()
    costs = costs_to_target(runs, curve(runs), 60.0, [RMSE]).set_index("method")
    assert costs["n_reached"].to_dict() == {"backprop": 4, "spsa": 0, "drtp": 4}
    assert costs["s_to_target"].to_dict() == {"backprop": 2.0, "spsa": np.inf, "drtp": 2.0}
    assert costs_to_target(runs, curve(runs), None, [RMSE])["target"].round(2).unique() == [52.66]


def test_one_target_is_not_for_two_metrics() -> None:
    with pytest.raises(Exception, match="judged by accuracy, RMSE; choose runs of one metric with --select"):
        costs_to_target(both(), curve(both()), 0.9, [ACC, RMSE])


def test_rows_of_two_metrics_are_never_compared_or_drawn_together() -> None:
    runs = both()
    differences = paired_differences(runs, 0.01, [ACC, RMSE])
    on_values = differences["dataset"] == "diabetes"
    assert differences.loc[on_values, "test_acc_diff_mean"].isna().all()
    assert differences.loc[~on_values, "test_rmse_diff_mean"].isna().all()
    assert differences[["test_acc_diff_mean", "test_rmse_diff_mean"]].notna().sum(axis=1).tolist() == [1, 1, 1]
    results = made(runs)
    pictures = {
        block.name: {panel.dataset for panel in block.panels}
        for section in (answer.section, accuracy.section, curves.section)
        for block in section(results)
        if isinstance(block, Picture)
    }
    assert {"accuracy_memory", "rmse_memory", "accuracy", "rmse", "curve_epoch_rmse"} <= set(pictures)
    assert pictures["accuracy_memory"] == {"digits"}
    assert pictures["rmse_memory"] == {"diabetes"}


def test_a_twin_is_judged_by_the_same_metric() -> None:
    """Backprop by accuracy, a rule by RMSE, on one data set: no pair."""
    runs = runs_of(run("backprop", "diabetes", 0), of_errors("spsa", 0))
    (row,) = paired_differences(runs, 0.01, [ACC, RMSE]).to_dict("records")
    assert (row["method"], row["n_pairs"]) == ("spsa", 0)


def test_means_over_data_sets_are_of_one_metric() -> None:
    assert set(interquartile_means(both()[both()["primary_metric"] == "acc"], ACC)["method"]) == {"backprop", "spsa"}


def test_a_report_over_two_metrics_has_a_column_and_words_for_each() -> None:
    results = made(both())
    headers = results_table(results).headers
    assert {"test acc, %", "vs backprop, points", "test RMSE", "vs backprop, RMSE"} <= set(headers)
    assert headers.index("vs backprop, RMSE") > headers.index("test RMSE") > headers.index("vs backprop, points")
    tex = results_tex(results)
    assert "Bold: test accuracy or RMSE differs" in tex
    text = "\n".join(block.text for section in SECTIONS for block in section(results) if isinstance(block, Text))
    headings = [b.text for section in SECTIONS for b in section(results) if isinstance(b, Heading)]
    assert "Accuracy, RMSE and learning" in headings
    assert "5% above the validation RMSE that backprop reaches" in text
