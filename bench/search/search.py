"""Equal-budget search of settings, per row of the tables, on validation data and with a seed that is never reported.

Every row gets the same number of trials, backprop included: half of them spread evenly over the ranges that the
method declares, the others by TPE, two at a time. Where the best lies next to an end of its range, the range grows
beyond that end and a third as many trials are spread over what was added; where no trial is above chance, it grows
at all its ends; twice at most. A trial that fails counts as the worst. A trial never reads test data.

Suggestions depend on the trials before them alone, and the run records hold those: a search that is stopped, or
shared by several processes, asks for the same trials, and none is run twice.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

from bench.api.errors import ConfigError
from bench.experiment.config import Tuning, epochs_for
from bench.experiment.plan import Run
from bench.experiment.ranges import EDGE, Side, Space
from bench.record.primary import Primary
from bench.record.searches import Stage, Trial, Verdict
from bench.search.sampler import Point, guided, spread

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api.metric import Metric

AT_A_TIME = 2  # trials of a row between two looks of TPE at what is known
WIDENINGS = 2
STANDARD_ERRORS = 3  # above chance, from which on something was learnt

Execute = Callable[[list[Run]], list[dict[str, Any] | None]]
Key = tuple[str, str, str, str]  # method, net, data set, the other settings


@dataclass
class Search:
    """The search of one row: a method on a net and a data set.

    at_chance: the value of the primary metric up to which nothing was learnt.
    """

    run: Run
    declared: Space
    at_chance: float
    space: Space = field(init=False)
    primary: Primary = field(init=False)
    tried: list[Trial] = field(default_factory=list)
    ended: float | None = None  # when its last trial did, in Unix seconds

    def __post_init__(self) -> None:
        self.space = dict(self.declared)
        self.primary = Primary(self.run.metrics[0].load().columns()[0])

    @property
    def key(self) -> Key:
        return key_of(self.run, self.declared)

    @property
    def best(self) -> Trial | None:
        """The trial with the best primary metric on validation data, the earliest of equals; None where all failed."""
        reached = [(trial, self.primary.gain(trial.value)) for trial in self.tried if trial.value is not None]
        return max(reached, key=lambda pair: pair[1])[0] if reached else None

    @property
    def has_learnt(self) -> bool:
        """Whether the best trial is better than chance."""
        best = self.best
        gain = self.primary.gain
        return best is not None and best.value is not None and gain(best.value) > gain(self.at_chance)

    @property
    def is_refused(self) -> bool:
        return bool(self.tried) and all(trial.status == "skipped" for trial in self.tried)

    @property
    def verdict(self) -> Verdict:
        best = self.best
        if best is None:
            return "refused" if self.is_refused else "failed"
        if not self.has_learnt:
            return "chance"
        return "edge" if self.open_ends() else "solved"

    def open_ends(self) -> list[tuple[str, Side]]:
        """The ends beyond which better may lie: those next to the best; all of them where there is no best."""
        best, sides = self.best, get_args(Side)
        ends: list[tuple[str, Side]] = [(k, side) for k, r in self.space.items() for side in sides if r.is_open(side)]
        if best is None or not self.has_learnt:
            return ends
        return [(name, side) for name, side in ends if self._is_next_to(best, name, side)]

    def _is_next_to(self, best: Trial, name: str, side: Side) -> bool:
        """Within a tenth of the range from its end, or with no trial beyond it that would show a fall."""
        values = [trial.settings[name] for trial in self.tried]
        at = self.space[name].place(best.settings[name])
        if side == "low":
            return at <= EDGE or best.settings[name] == min(values)
        return at >= 1 - EDGE or best.settings[name] == max(values)

    def ask(self, stage: Stage, n: int, seed: int) -> list[Point]:
        """The next n points: the same ones whenever it is asked after the same trials."""
        tried = [trial.settings for trial in self.tried]
        if stage == "spread":
            return spread(self.space, tried, n, seed)
        if stage == "guided":
            return guided(self.space, self.scored(), n, seed + len(tried))
        parts = [(name, self.space[name].beyond(side)) for name, side in self.open_ends()]
        points: list[Point] = []
        for k, (name, part) in enumerate(parts):  # one at least in each part
            share = max(1, (n - len(points)) // (len(parts) - k))
            points += spread({**self.space, name: part}, [*tried, *points], share, seed + len(tried) + k)
        for name, part in parts:
            self.space[name] = self.space[name].joined(part)
        return points

    def scored(self) -> list[tuple[Point, float]]:
        """What was tried, with a score that is higher the better: a trial that failed counts as the worst there is."""
        gains = [None if trial.value is None else self.primary.gain(trial.value) for trial in self.tried]
        low, high = self.primary.column.bounds
        worst = low if self.primary.higher else high
        known = [gain for gain in gains if gain is not None]
        least = min(known, default=0.0) if worst is None else self.primary.gain(worst)
        return [(t.settings, least if gain is None else gain) for t, gain in zip(self.tried, gains, strict=True)]


def searches(runs: Sequence[Run], spaces: dict[str, Space], at_chance: dict[str, float]) -> list[Search]:
    """One for each row and data set among `runs`, for all seeds together. at_chance: by data set."""
    found: dict[Key, Search] = {}
    for run in runs:
        space = spaces[run.spec.method]
        if space:
            found.setdefault(key_of(run, space), Search(run, space, at_chance[run.spec.dataset]))
    return list(found.values())


def conduct(rows: Sequence[Search], tuning: Tuning, execute: Execute) -> bool:
    """Bring all searches to their end, side by side; False where they were stopped.

    execute: brings runs to their end and gives their summaries.
    """
    n_spread = math.ceil(tuning.trials / 2)
    n_guided = tuning.trials - n_spread
    rounds: list[tuple[Stage, int]] = [("spread", n_spread)]
    rounds += [("guided", min(AT_A_TIME, n_guided - done)) for done in range(0, n_guided, AT_A_TIME)]
    rounds += [("widened", math.ceil(tuning.trials / 3))] * WIDENINGS
    return all(_round(rows, stage, n, tuning, execute) for stage, n in rounds)


def _round(rows: Sequence[Search], stage: Stage, n: int, tuning: Tuning, execute: Execute) -> bool:
    """Some trials of all rows together; False where it was stopped."""
    asked = [(row, point) for row in rows if not row.is_refused for point in row.ask(stage, n, tuning.seed)]
    summaries = execute([_trial(row.run, point, tuning) for row, point in asked]) if asked else []
    for (row, point), summary in zip(asked, summaries, strict=True):
        if summary is None or summary["status"] == "interrupted":
            return False
        value = summary[row.primary.val] if summary["status"] == "ok" else None
        trial = Trial(
            settings=point, value=value, status=summary["status"], stage=stage, train_s=summary.get("train_s")
        )
        row.tried.append(trial)
        row.ended = max(filter(None, (row.ended, summary.get("finished_at"))), default=None)
    return True


def tuned(runs: Sequence[Run], rows: Sequence[Search]) -> list[Run]:
    """The runs, each with what the search of its row found; as they are where every trial failed."""
    return list(_tuned(runs, rows))


def _tuned(runs: Sequence[Run], rows: Sequence[Search]) -> Iterator[Run]:
    found = {row.key: row for row in rows}
    spaces = {row.run.spec.method: row.declared for row in rows}
    for run in runs:
        row = found.get(key_of(run, spaces.get(run.spec.method, {})))
        yield with_settings(run, row.best.settings) if row and row.best else run


def with_settings(run: Run, settings: Point) -> Run:
    """The run with settings that a search has chosen."""
    change = {"method_settings": {**run.spec.method_settings, **settings}, "tuned": tuple(sorted(settings))}
    return replace(run, spec=run.spec.model_copy(update=change))


def at_chance(n_classes: int, n_images: int) -> float:
    """1 / classes, and three standard errors of a share of that size."""
    p = 1 / n_classes
    return p + STANDARD_ERRORS * math.sqrt(p * (1 - p) / n_images)


def constant_value(metric: "Metric", constant: "Tensor", y: "Tensor") -> float:
    """What the best output that ignores the input reaches. Raises: ConfigError where the labels leave it undefined.

    Shape: constant (*output.shape), y the validation labels.
    """
    metric.add(constant.expand(len(y), *constant.shape), y)
    value = metric.value()
    if not math.isfinite(value):
        raise ConfigError(f"the metric {metric.name} is {value} on these validation data; search by another one")
    return value


def trial_epochs(run: Run, tuning: Tuning) -> int:
    """Those of the reported run unless the search names its own."""
    if tuning.epochs is None:
        return run.spec.epochs
    return epochs_for(tuning.epochs, run.spec.dataset, run.spec.method)


def label(own: Mapping[str, Any], peers: Iterable[Mapping[str, Any]]) -> str:
    """The settings in which a row differs from another one, as tables name it."""
    several = list(peers)
    return ", ".join(f"{k}={v}" for k, v in sorted(own.items()) if any(peer.get(k) != v for peer in several))


def others(run: Run, space: Space) -> dict[str, Any]:
    """The method's settings that are not searched."""
    return {name: value for name, value in run.spec.method_settings.items() if name not in space}


def key_of(run: Run, space: Space) -> Key:
    spec = run.spec
    return spec.method, spec.net, spec.dataset, json.dumps([spec.net_settings, others(run, space)], sort_keys=True)


def _trial(run: Run, point: Point, tuning: Tuning) -> Run:
    change = {
        "method_settings": {**run.spec.method_settings, **point},
        "seed": tuning.seed,
        "epochs": trial_epochs(run, tuning),
        "eval_draws": 0,
        "instruments": (),
    }
    return replace(run, spec=run.spec.model_copy(update=change))
