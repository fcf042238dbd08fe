"""The columns that the report reads, with their types: the one place that makes the store's frames regular.

Failed runs lack most values and an empty experiment lacks all, so a column may come as objects or not at all.
"""

from typing import Any

import pandas as pd

from bench.stats import REFERENCE, ROW

RUN_TEXT = ["run_id", "experiment", *ROW, "status", "reason", "device", "env_id"]
RUN_NUMBERS = [
    "seed",
    "test_acc",
    "test_acc_std",
    "test_acc_noise_free",
    "val_acc",
    "train_loss",
    "epochs",
    "batch_size",
    "steps",
    "train_s",
    "eval_s",
    "data_s",
    "setup_s",
    "step_ms_p50",
    "step_ms_p95",
    "examples_per_s",
    "gpu_peak_alloc_bytes",
    "gpu_peak_reserved_bytes",
    "cpu_peak_rss_bytes",
    "params_inference",
    "params_training_only",
]
CURVE_TEXT = ["run_id", *ROW]
CURVE_NUMBERS = ["seed", "epoch", "step", "train_loss", "val_acc", "train_s", "eval_s"]
WAYS_TEXT = ["run_id", *ROW, "sampler"]
WAYS_NUMBERS = ["seed", "steps", "accuracy", "n_images"]


def tidy_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """All known columns, text as str and numbers as float, in the order of the tables: backprop first."""
    runs = _typed(runs, RUN_TEXT, RUN_NUMBERS)
    runs = runs.assign(_other=runs["method"] != REFERENCE)
    runs = runs.sort_values(["dataset", "_other", "method", "net", "variant", "seed"], kind="stable")
    return runs.drop(columns="_other").reset_index(drop=True)


def tidy_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """All known columns, text as str and numbers as float."""
    return _typed(curves, CURVE_TEXT, CURVE_NUMBERS)


def tidy_ways(ways: pd.DataFrame) -> pd.DataFrame:
    """All known columns, text as str and numbers as float."""
    return _typed(ways, WAYS_TEXT, WAYS_NUMBERS)


def _typed(frame: pd.DataFrame, text: list[str], numbers: list[str]) -> pd.DataFrame:
    further = [name for name in frame.columns if name not in {*text, *numbers}]
    frame = frame.reindex(columns=[*text, *numbers, *further])
    typed: dict[str, pd.Series[Any]] = {
        name: frame[name].astype(object).where(frame[name].notna(), "").astype(str) for name in text
    }
    typed |= {name: pd.to_numeric(frame[name], errors="coerce").astype(float) for name in numbers}
    return frame.assign(**typed)
