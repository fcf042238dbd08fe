"""Floating-point operations up to each point of a learning curve."""

import numpy as np
import pandas as pd

PER_STEP, BY_PHASE = "flops_per_step", "flops_by_phase"


def with_flops(points: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The points of curves with `train_flops` as far as it is known.

    Records that lack it give it as steps times the FLOPs of one, where all steps of the run take the same.
    """
    found = runs[PER_STEP].to_numpy(dtype=float) if PER_STEP in runs else np.full(len(runs), np.nan)
    alike = [words != words or not words for words in runs[BY_PHASE]] if BY_PHASE in runs else np.full(len(runs), True)
    per_step = pd.Series(np.where(alike, found, np.nan), index=runs["run_id"])
    counted = points["step"].astype(float) * points["run_id"].map(per_step).astype(float)
    known = points["train_flops"].astype(float) if "train_flops" in points else counted
    return points.assign(train_flops=known.fillna(counted))
