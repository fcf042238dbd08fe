"""Planned runs on the digits, and executors whose accuracy is a known function of the settings."""

import math
from collections.abc import Callable
from typing import Any

from bench.catalog.catalog import Catalog
from bench.data import load
from bench.experiment.config import Experiment, Tuning
from bench.experiment.plan import Run, check, plan
from bench.experiment.ranges import spaces
from bench.search.search import Search, at_chance, conduct, searches

CATALOG = Catalog()
DIGITS = load(CATALOG.dataset("digits"))
CHANCE = at_chance(DIGITS.output.size, len(DIGITS.val.y))

Score = Callable[[dict[str, Any]], float | None]
Execute = Callable[[list[Run]], list[dict[str, Any] | None]]


def asked(*methods: str, **more: Any) -> Experiment:
    tune = more.pop("tune", {})
    return Experiment(methods=list(methods), net="mlp", **{"seeds": [0, 1], "epochs": 20, **more}, tune=tune)


def planned(experiment: Experiment) -> list[Run]:
    check(experiment, CATALOG)
    return plan(experiment, CATALOG, device="cpu", datasets={"digits": DIGITS})


def peak_at(best: float, failing_above: float = math.inf) -> Score:
    """Highest at `best`, falling by a tenth a decade; a rate above `failing_above` makes the run diverge."""
    return lambda s: None if s["lr"] > failing_above else max(0.0, 1 - abs(math.log10(s["lr"] / best)) / 10)


def executor(score: Score, seen: list[Run] | None = None) -> Execute:
    def execute(runs: list[Run]) -> list[dict[str, Any] | None]:
        if seen is not None:
            seen.extend(runs)
        return [_summary(score(run.spec.method_settings)) for run in runs]

    return execute


def searched(experiment: Experiment, execute: Execute) -> list[Search]:
    """Its searches, brought to their end."""
    rows, tuning = begun(experiment)
    assert conduct(rows, tuning, execute)
    return rows


def begun(experiment: Experiment) -> tuple[list[Search], Tuning]:
    assert experiment.tune is not None
    configs = {name: CATALOG.methods[name].load().Config for name in experiment.methods}
    return searches(planned(experiment), spaces(experiment, configs), {"digits": CHANCE}), experiment.tune


def _summary(val_acc: float | None) -> dict[str, Any]:
    if val_acc is None:
        return {"status": "diverged", "reason": "the loss was NaN", "val_acc": 0.99}
    return {"status": "ok", "val_acc": val_acc, "train_s": 2.0, "finished_at": 86400.0}
