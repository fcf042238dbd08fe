"""Equal-budget search of one setting per method, on validation data and with a seed that is never reported.

Every method gets the same number of trials, backprop included. Two thirds of them lie on a logarithmic grid over
the range that the method declares for the setting, the rest halve the gaps around the best of those, in log scale.
A trial never reads test data.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from bench.api.errors import ConfigError
from bench.spec.config import Tuning, epochs_for
from bench.spec.plan import Run

Key = tuple[str, str, str, str]  # method, net, data set, the other settings


@dataclass
class Search:
    """The trials of one method on one net and data set: value to validation accuracy (None: the run failed)."""

    run: Run
    setting: str
    low: float
    high: float
    tried: dict[float, float | None] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return _key(self.run, self.setting)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of net and method but the one that is searched."""
        return _others(self.run, self.setting)

    @property
    def best(self) -> float | None:
        """The value with the highest validation accuracy, the smallest of equals; None where every trial failed."""
        scored = [(-score, value) for value, score in self.tried.items() if score is not None]
        return min(scored)[1] if scored else None

    def coarse(self, n: int) -> list[float]:
        return log_grid(self.low, self.high, n)

    def fine(self, n: int) -> list[float]:
        """n values around the best, alternately above and below, each halving the gap to what was tried."""
        values: list[float] = []
        best = self.best
        if best is None:
            return log_grid(self.low, self.high, n + 2)[1:-1]
        for i in range(n):
            known = sorted({*self.tried, *values})
            at = known.index(best)
            above, below = at + 1 < len(known), at > 0
            up = above if i % 2 == 0 else not below
            if not (above or below):
                break
            values.append(_round(math.sqrt(best * known[at + 1 if up and above else at - 1])))
        return values


def log_grid(low: float, high: float, n: int) -> list[float]:
    """n values from low to high at equal ratios, to three digits."""
    if n == 1:
        return [_round(math.sqrt(low * high))]
    return [_round(low * (high / low) ** (i / (n - 1))) for i in range(n)]


def search(
    runs: Sequence[Run],
    tuning: Tuning,
    execute: Callable[[list[Run]], list[dict[str, Any] | None]],
) -> list[Search] | None:
    """Find the setting for every row and data set among `runs`, once for all seeds; None where it was stopped.

    execute: brings runs to their end and gives their summaries.
    Raises: ConfigError where a method declares no range for the setting.
    """
    by_key: dict[Key, Search] = {}
    for run in runs:
        low, high = _range(run.method.load().Config, tuning.setting, run.spec.method)
        found = Search(run, tuning.setting, low, high)
        by_key.setdefault(found.key, found)
    searches = list(by_key.values())
    n_coarse = math.ceil(tuning.trials * 2 / 3)
    for stage in ("coarse", "fine"):
        trials = [
            (s, value)
            for s in searches
            for value in (s.coarse(n_coarse) if stage == "coarse" else s.fine(tuning.trials - n_coarse))
        ]
        summaries = execute([_trial(s, value, tuning) for s, value in trials])
        for (s, value), summary in zip(trials, summaries, strict=True):
            if summary is None or summary["status"] == "interrupted":
                return None
            s.tried[value] = summary["val_acc"] if summary["status"] == "ok" else None
    return searches


def tuned(runs: Sequence[Run], searches: Sequence[Search]) -> list[Run]:
    """The runs with each one's setting at what its search found; at its default where every trial failed."""
    best = {s.key: s.best for s in searches}
    setting = searches[0].setting
    return [_with(run, setting, best[_key(run, setting)], tuned=(setting,)) for run in runs]


def as_rows(searches: Sequence[Search]) -> list[dict[str, Any]]:
    """What was tried and found, for the report and as the provenance of the settings."""
    return [
        {
            "method": s.key[0],
            "net": s.key[1],
            "dataset": s.key[2],
            "variant": _variant(s, searches),
            "setting": s.setting,
            "low": s.low,
            "high": s.high,
            "best": s.best,
            "tried": [{"value": value, "val_acc": score} for value, score in sorted(s.tried.items())],
        }
        for s in searches
    ]


def _trial(s: Search, value: float, tuning: Tuning) -> Run:
    run = _with(s.run, s.setting, value)
    spec = run.spec.model_copy(
        update={
            "seed": tuning.seed,
            "epochs": epochs_for(tuning.epochs, s.run.spec.dataset, s.run.spec.method),
            "eval_draws": 0,
            "instruments": (),
        }
    )
    return replace(run, spec=spec)


def _with(run: Run, setting: str, value: float | None, *, tuned: tuple[str, ...] = ()) -> Run:
    """The run with a setting at `value`; as it is where there is none."""
    if value is None:
        return run
    change = {"method_settings": {**run.spec.method_settings, setting: value}, "tuned": tuned}
    return replace(run, spec=run.spec.model_copy(update=change))


def _key(run: Run, setting: str) -> Key:
    spec = run.spec
    return spec.method, spec.net, spec.dataset, json.dumps(_others(run, setting), sort_keys=True)


def _others(run: Run, setting: str) -> dict[str, Any]:
    settings = {k: v for k, v in run.spec.method_settings.items() if k != setting}
    return {**run.spec.net_settings, **settings}


def _variant(s: Search, searches: Sequence[Search]) -> str:
    """The settings in which a search differs from another one of its method, as a label."""
    peers = [other.settings for other in searches if other.key[:3] == s.key[:3]]
    return ", ".join(f"{k}={v}" for k, v in sorted(s.settings.items()) if any(p.get(k) != v for p in peers))


def _range(config: type[BaseModel], setting: str, method: str) -> tuple[float, float]:
    schema = config.model_json_schema().get("properties", {}).get(setting, {})
    kind, *bounds = schema.get("search", ("none",))
    if kind != "log" or len(bounds) != 2:
        raise ConfigError(
            f"tune: {method} declares no search range for '{setting}'; leave it out or add search=['log', low, high]"
        )
    return float(bounds[0]), float(bounds[1])


def _round(value: float) -> float:
    return float(f"{value:.3g}")
