"""Backprop's row on the same data set and net: what every other row is held against."""

from collections.abc import Callable, Collection
from typing import Any

import pandas as pd

REFERENCE = "backprop"
PLACE = ["dataset", "data_id", "net", "protocol"]
TUNED = "tuned="


def twin_variant(variant: str, available: Collection[str]) -> str | None:
    """Backprop under the same settings, else under its defaults, else in the one form that ran.

    That a form was tuned is no setting of its own: which of them count is decided before.
    """
    bare = {_bare(form): form for form in available}
    if len(bare) < len(available):  # told apart by what searches chose alone
        return variant if variant in available else None
    if _bare(variant) in bare:
        return bare[_bare(variant)]
    if "" in bare:
        return bare[""]
    return next(iter(available)) if len(available) == 1 else None


def _bare(variant: str) -> str:
    return ", ".join(part for part in variant.split(", ") if not part.startswith(TUNED))


def _of_equal_effort(forms: dict[str, pd.DataFrame], *, tuned: bool) -> dict[str, pd.DataFrame]:
    """Backprop's forms that a search has chosen settings for where it has for the row, and the others where not.

    A row without search may be held against a searched one, where there is no other: never the other way round.
    """
    alike = {form: of for form, of in forms.items() if bool(of["tuned"].iat[0]) == tuned}
    return alike if tuned or alike else forms


def twins(runs: pd.DataFrame) -> Callable[[pd.DataFrame], tuple[str | None, pd.DataFrame]]:
    """What finds the twin of a row, given the row's runs: its variant, None where there is none, and its runs.

    It has the row's data, net and protocol, no less of a search, and the net's settings where backprop ran under these.
    """
    none = runs[:0]
    theirs = runs[runs["method"] == REFERENCE].groupby([*PLACE, "variant"], sort=False)
    found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for (*place, variant), group in theirs:
        found.setdefault(tuple(place), {})[str(variant)] = group

    def twin(row: pd.DataFrame) -> tuple[str | None, pd.DataFrame]:
        mine = row.iloc[0]
        there = _of_equal_effort(found.get(tuple(mine[PLACE]), {}), tuned=bool(mine["tuned"]))
        same_net = {v: of for v, of in there.items() if of["net_settings"].iat[0] == mine["net_settings"]}
        nearest = twin_variant(str(mine["variant"]), same_net or there)
        return nearest, none if nearest is None else there[nearest]

    return twin
