"""No failure is forgotten."""

import pandas as pd

from bench.stats import count_runs


def test_failures_are_counted_by_status() -> None:
    runs = pd.DataFrame(
        [
            ("spsa", "", "ok"),
            ("spsa", "", "oom"),
            ("spsa", "", "diverged"),
            ("spsa", "", "diverged"),
            ("spsa", "T=5", "ok"),
        ],
        columns=["method", "variant", "status"],
    ).assign(dataset="digits", net="mlp")
    assert count_runs(runs)[["variant", "n_ok", "n_runs", "failures"]].to_numpy().tolist() == [
        ["", 1, 4, "2 diverged, 1 oom"],
        ["T=5", 1, 1, ""],
    ]
