"""Backprop's row on the same data set and net: what every other row is held against."""

from collections.abc import Callable, Collection
from typing import Any

import pandas as pd

REFERENCE = "backprop"
PLACE = ["dataset", "net", "protocol"]


def twin_variant(variant: str, available: Collection[str]) -> str | None:
    """Backprop under the same settings, else under its defaults, else in the one form that ran."""
    if variant in available:
        return variant
    if "" in available:
        return ""
    return next(iter(available)) if len(available) == 1 else None


def twins(runs: pd.DataFrame) -> Callable[[pd.DataFrame], tuple[str | None, pd.DataFrame]]:
    """What finds the twin of a row, given the row's runs: its variant, None where there is none, and its runs.

    It has the row's data set, net and protocol, and the net's settings where backprop ran under these.
    """
    none = runs[:0]
    theirs = runs[runs["method"] == REFERENCE].groupby([*PLACE, "variant"], sort=False)
    found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for (*place, variant), group in theirs:
        found.setdefault(tuple(place), {})[str(variant)] = group

    def twin(row: pd.DataFrame) -> tuple[str | None, pd.DataFrame]:
        mine = row.iloc[0]
        there = found.get(tuple(mine[PLACE]), {})
        same_net = {v: of for v, of in there.items() if of["net_settings"].iat[0] == mine["net_settings"]}
        nearest = twin_variant(str(mine["variant"]), same_net or there)
        return nearest, none if nearest is None else there[nearest]

    return twin
