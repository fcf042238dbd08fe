"""What a target costs: seconds and FLOPs of training until the primary metric on validation data first reaches it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.api.column import Column
from bench.api.errors import ConfigError
from bench.record.primary import ACCURACY, Primary, apart
from bench.stats.counts import ROW, finished
from bench.stats.curve_flops import with_flops
from bench.stats.twins import twins

OF_TWIN = 0.95
NOT_TRIED = ("skipped", "interrupted", "running")

TARGETS = (
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
        "the same median in floating-point operations of the training steps taken until then",
        scale=1e-12,
        shown="page",
    ),
)


def targets_of(primary: Primary) -> tuple[Column, ...]:
    """The columns of `costs_to_target` for the rows of one primary metric."""
    column, unit = primary.column, f", {primary.unit}" if primary.unit else ""
    what = f"the validation {primary.word} to be reached"
    target = Column("target", f"target{unit}", what, column.scale, column.decimals, shown="page")
    return (target, *TARGETS)


def costs_to_target(
    runs: pd.DataFrame, curves: pd.DataFrame, target: float | None, primaries: Sequence[Primary] = (ACCURACY,)
) -> pd.DataFrame:
    """Per row with learning curves: the columns of `targets_of`, medians over runs.

    target: in the metric's own unit, a fraction for accuracy; None for 95% of what the row's backprop twin reaches on
    validation data at its end, the mean over its seeds; where lower is better, 5% above it. A row without either is
    left out. FLOPs are NaN where no run says how many its steps took.
    Raises: ConfigError for one target of several primary metrics.
    """
    if target is not None and len(primaries) > 1:
        words = ", ".join(primary.word for primary in primaries)
        raise ConfigError(f"--target: the runs are judged by {words}; choose runs of one metric with --select")
    frames = [_costs(of, curves, target, primary) for primary, of in apart(runs, primaries)]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _aim(reached: float, primary: Primary) -> float:
    """A little worse than what backprop reached."""
    return reached * (OF_TWIN if (reached >= 0) == primary.higher else 2 - OF_TWIN)


def _costs(runs: pd.DataFrame, curves: pd.DataFrame, target: float | None, primary: Primary) -> pd.DataFrame:
    tried = runs[~runs["status"].isin(NOT_TRIED)]
    twin, groups = twins(runs), dict(list(tried.groupby(ROW, sort=False)))
    aims = {
        row: _aim(finished(twin(group)[1])[primary.val].mean(), primary) if target is None else target
        for row, group in groups.items()
    }
    curves = with_flops(curves, runs)
    curves = curves.assign(reached=curves.get(primary.val, math.nan)).dropna(subset=["reached"]).sort_values("epoch")
    rows = dict(zip(tried["run_id"], tried[ROW].itertuples(index=False, name=None), strict=True))
    aim_of = {run_id: aims[row] for run_id, row in rows.items()}
    aim = curves["run_id"].map(aim_of).astype(float)
    there = curves[curves["reached"] >= aim] if primary.higher else curves[curves["reached"] <= aim]
    first = there.drop_duplicates("run_id").set_index("run_id")
    with_curve = {rows[run_id] for run_id in curves["run_id"].unique() if run_id in rows}
    lines = []
    for row, group in groups.items():
        if row not in with_curve or math.isnan(aims[row]):
            continue
        at = first[["train_s", "train_flops", "step"]].reindex(group["run_id"])
        step = at["step"].to_numpy()
        counted = curves["train_flops"][curves["run_id"].isin(group["run_id"])].notna().any()
        flops = _median(at["train_flops"].to_numpy(), step) if counted else math.nan
        n_reached = np.count_nonzero(~np.isnan(step))
        lines.append((*row, aims[row], n_reached, len(group), _median(at["train_s"].to_numpy(), step), flops))
    return pd.DataFrame(lines, columns=[*ROW, "target", *(column.name for column in TARGETS)])


def _median(cost: NDArray[np.float64], step: NDArray[np.float64]) -> float:
    """With runs that missed the target, which have no step, as infinite. NaN where a run reached it at unknown cost."""
    return float(np.median(np.where(np.isnan(step), np.inf, cost)))
