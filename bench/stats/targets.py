"""What a target costs: seconds and FLOPs of training until validation accuracy first reaches it."""

import math

import numpy as np
import pandas as pd

from bench.api.column import Column
from bench.stats.counts import ROW, finished
from bench.stats.twins import twin

OF_TWIN = 0.95
FLOPS_PER_STEP = "flops_per_step"
NOT_TRIED = ("skipped", "interrupted", "running")

TARGETS = (
    Column("target", "target, %", "the validation accuracy to be reached", scale=100, decimals=2, shown="page"),
    Column("n_reached", "reached by", "how many runs reached it, as seen at the ends of epochs", shown="page"),
    Column("n_tried", "of", "runs that were made, with those that failed", shown="page"),
    Column(
        "s_to_target",
        "to target, s",
        "median training time until then; a run that never reaches it counts as infinite, so that inf means half of "
        "them or more",
        shown="page",
    ),
    Column(
        "flops_to_target",
        "to target, TFLOP",
        "the same median in floating-point operations: training steps times what one step takes",
        scale=1e-12,
        shown="page",
    ),
)


def costs_to_target(runs: pd.DataFrame, curves: pd.DataFrame, target: float | None) -> pd.DataFrame:
    """Per row with learning curves: the columns of TARGETS, its medians over runs.

    target: a fraction; None for 95% of what the row's backprop twin reaches on validation data at its end, the mean
    over its seeds. A row without either is left out. FLOPs are NaN where no run says how many a step takes.
    """
    lines = []
    curves = curves.dropna(subset=["val_acc"]).sort_values("epoch")
    by_row = dict(list(curves.groupby(curves["run_id"].map(_rows_of(runs)))))
    tried = runs[~runs["status"].isin(NOT_TRIED)]
    for row, group in tried.groupby(ROW, sort=False):
        points = by_row.get(row, curves[:0])
        aim = OF_TWIN * finished(twin(runs, group)[1])["val_acc"].mean() if target is None else target
        if points.empty or math.isnan(aim):
            continue
        first = points[points["val_acc"] >= aim].drop_duplicates("run_id").set_index("run_id")
        at = first[["train_s", "step"]].reindex(group["run_id"]).reset_index(drop=True)
        per_step = group.get(FLOPS_PER_STEP, pd.Series(math.nan, group.index)).reset_index(drop=True)
        flops = math.nan if per_step.isna().all() else _median(at["step"] * per_step, at["step"])
        lines.append((*row, aim, len(first), len(group), _median(at["train_s"], at["step"]), flops))
    return pd.DataFrame(lines, columns=[*ROW, *(column.name for column in TARGETS)])


def _rows_of(runs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The row of each run that was tried."""
    tried = runs[~runs["status"].isin(NOT_TRIED)]
    return dict(zip(tried["run_id"], tried[ROW].itertuples(index=False, name=None), strict=True))


def _median(cost: "pd.Series[float]", step: "pd.Series[float]") -> float:
    """With runs that missed the target, which have no step, as infinite. NaN where a run reached it at unknown cost."""
    return float(np.median(cost.where(step.notna(), np.inf)))
