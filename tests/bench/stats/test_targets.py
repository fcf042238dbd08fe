"""Cost of a target: learning curves of which the answer can be read off."""

import math

import pandas as pd
import pytest

from bench.stats import costs_to_target, with_flops


def run(method: str, seed: int, val_acc: float, *, status: str = "ok", **others: object) -> dict[str, object]:
    row = {
        "dataset": "digits",
        "method": method,
        "net": "mlp",
        "variant": "",
        "net_settings": "{}",
        "data_id": "d",
        "conditions": "",
        "tuned": "",
        "protocol": "matched",
    }
    return {"run_id": f"{method}-{seed}", **row, "seed": seed, "status": status, "val_acc": val_acc, **others}


def curve(run_id: str, *val_acc: float, seconds: float = 1.0) -> list[dict[str, object]]:
    """An epoch is ten steps and so many seconds."""
    points = enumerate(val_acc, start=1)
    return [{"run_id": run_id, "epoch": e, "step": 10 * e, "val_acc": acc, "train_s": seconds * e} for e, acc in points]


def costs(runs: list[dict[str, object]], *curves: list[dict[str, object]], target: float | None) -> pd.DataFrame:
    points = pd.DataFrame([point for points in curves for point in points], columns=POINT)
    return costs_to_target(pd.DataFrame(runs), points, target).set_index("method")


POINT = ["run_id", "epoch", "step", "val_acc", "train_s"]


def test_the_target_follows_from_the_last_accuracy_of_the_twin() -> None:
    """Backprop ends at 0.8 and 1.0, so the target is 0.95 x 0.9 = 0.855; it is reached where a curve first is there."""
    runs = [run("backprop", 0, 0.8), run("backprop", 1, 1.0), run("spsa", 0, 0.86)]
    rows = costs(
        runs,
        curve("backprop-0", 0.5, 0.8),
        curve("backprop-1", 0.5, 1.0),
        curve("spsa-0", 0.1, 0.9, 0.2, 0.86, seconds=3),
        target=None,
    )
    assert rows["target"].tolist() == pytest.approx([0.855, 0.855])
    assert rows["n_reached"].tolist() == [1, 1]
    assert rows["n_tried"].tolist() == [2, 1]
    assert rows["s_to_target"].tolist() == [math.inf, 6.0]


def test_misses_and_failures_are_infinite() -> None:
    """Two of five reach it: the median is infinite. Three of five: it is the third."""
    for third, median in ((0.1, math.inf), (0.9, 7.0)):
        runs = [run("spsa", s, 0.9, status="oom" if s == 4 else "ok") for s in range(5)]
        curves = [curve(f"spsa-{s}", acc, seconds=5 + s) for s, acc in enumerate((0.9, 0.9, third, 0.1))]
        row = costs([*runs, run("spsa", 5, math.nan, status="skipped")], *curves, target=0.9).loc["spsa"]
        assert (row["n_tried"], row["s_to_target"]) == (5, median)
        assert row["n_reached"] == 2 + (third == 0.9)


def test_flops_are_steps_times_those_of_one() -> None:
    runs = [run("spsa", s, 0.9, flops_per_step=1e9 * (1 + s)) for s in range(3)]
    curves = [curve("spsa-0", 0.1, 0.9), curve("spsa-1", 0.9), curve("spsa-2", 0.1)]
    assert costs(runs, *curves, target=0.5).loc["spsa", "flops_to_target"] == 2e10
    assert math.isnan(costs([run("spsa", 0, 0.9)], curves[0], target=0.5).loc["spsa", "flops_to_target"])
    unknown = [run("spsa", 0, 0.9, flops_per_step=math.nan)]
    assert math.isnan(costs(unknown, curve("spsa-0", 0.1), target=0.5).loc["spsa", "flops_to_target"])


def test_flops_of_phases_are_those_of_the_steps_taken() -> None:
    """Ten steps of 1 GFLOP, then ten of 9: 5 a step in the mean, but 10 GFLOP at the end of the first ten."""
    of_run = run("spsa", 0, 0.9, flops_per_step=5e9, flops_by_phase="1 in 50% of steps, 9 in 50% of steps")
    bare = curve("spsa-0", 0.9, 0.9)
    points = [{**point, "train_flops": flops} for point, flops in zip(bare, (1e10, 1e11), strict=True)]
    for kept, at_first, at_last in ((points, 1e10, 1e11), (bare, math.nan, math.nan)):
        found = with_flops(pd.DataFrame(kept), pd.DataFrame([of_run]))["train_flops"]
        assert found.tolist() == pytest.approx([at_first, at_last], nan_ok=True)
        cost = costs_to_target(pd.DataFrame([of_run]), pd.DataFrame(kept), 0.5)["flops_to_target"]
        assert cost.tolist() == pytest.approx([at_first], nan_ok=True)


def test_no_row_without_a_twin_or_without_validation() -> None:
    assert costs([run("spsa", 0, 0.9)], curve("spsa-0", 0.9), target=None).empty
    assert costs([run("backprop", 0, math.nan)], curve("backprop-0", math.nan), target=None).empty
    assert costs([run("backprop", 0, 0.9)], curve("backprop-0", 0.9), target=None).index.tolist() == ["backprop"]
