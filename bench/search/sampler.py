"""Where to look next: a scrambled Sobol sequence over a space of settings, then Optuna's TPE.

Sobol 1967, "On the distribution of points in a cube"; Bergstra et al. 2011, "Algorithms for hyper-parameter
optimization" (tree-structured Parzen estimator). Both are pure functions of what was tried and of a seed: the same
search asks for the same trials again, whoever stops and continues it.
"""

import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.experiment.ranges import Range, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Point = dict[str, Any]  # a value for every setting of the space

SPARE = 4  # asked for 2^SPARE times as many points as wanted, those that were tried are passed over


def words() -> str:
    """The sampler's name, for provenance."""
    return f"scrambled Sobol, then TPE (optuna {importlib.metadata.version('optuna')})"


def spread(space: Space, tried: Sequence[Point], n: int, seed: int) -> list[Point]:
    """n points that were not tried, evenly over the space; fewer where it has no more.

    scipy's sequence, which is also Optuna's, whose own sampler would replace the first point by a random one.
    """
    from scipy.stats.qmc import Sobol

    rows = Sobol(len(space), scramble=True, seed=seed).random_base2(math.ceil(math.log2(n)) + SPARE)
    return _new((_point(space, row) for row in rows), tried, n)


def guided(space: Space, tried: Sequence[tuple[Point, float]], n: int, seed: int) -> list[Point]:
    """n points that were not tried, where high scores are likely; fewer where the space has no more."""
    import optuna  # takes half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(_frozen(space, tried))
    asked = {name: distribution(found) for name, found in space.items()}

    def suggestions() -> Iterator[Point]:
        for _ in range(n << SPARE):
            params = study.ask(asked).params
            yield {name: found.tidy(params[name]) for name, found in space.items()}

    return _new(suggestions(), [point for point, _ in tried], n)


def _frozen(space: Space, tried: Sequence[tuple[Point, float]]) -> "list[FrozenTrial]":
    """Trials as Optuna has them."""
    from optuna.trial import create_trial

    distributions = {name: distribution(found) for name, found in space.items()}
    return [create_trial(params=point, distributions=distributions, value=score) for point, score in tried]


def distribution(found: Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if found.kind == "choice":
        return CategoricalDistribution(found.options)
    if found.kind == "int":
        return IntDistribution(int(found.low), int(found.high))
    return FloatDistribution(found.low, found.high, log=found.kind == "log")


def _point(space: Space, row: Iterable[float]) -> Point:
    return {name: found.at(float(u)) for (name, found), u in zip(space.items(), row, strict=True)}


def _new(points: Iterable[Point], tried: Sequence[Point], n: int) -> list[Point]:
    """The first n different ones of these that were not tried."""
    fresh: list[Point] = []
    for point in points:
        if len(fresh) == n:
            break
        if point not in tried and point not in fresh:
            fresh.append(point)
    return fresh
