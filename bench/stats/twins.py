"""The reference's row on the same data set and net: what every other row is held against."""

import json
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import pandas as pd

from bench.catalog.catalog import reference

PLACE = ["dataset", "data_id", "net", "protocol"]
ALIKE = ("net_settings", "conditions")  # as JSON
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


@cache
def _agree(ours: str, theirs: str) -> bool:
    """Whether two sets of settings have the same values. One that an older record lacks is taken to be the same."""
    a, b = (json.loads(text or "{}") for text in (ours, theirs))
    return all(a[name] == b[name] for name in a.keys() & b.keys())


def twins(runs: pd.DataFrame) -> Callable[[pd.DataFrame], tuple[str | None, pd.DataFrame]]:
    """What finds the twin of a row, given the row's runs: its variant, None where there is none, and its runs.

    It has the row's data, net with its settings, conditions (batch size, budget, arithmetic, version of the harness)
    and protocol, and no less of a search.
    """
    none = runs[:0]
    theirs = runs[runs["method"] == reference()].groupby([*PLACE, "variant"], sort=False)
    found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for (*place, variant), group in theirs:
        found.setdefault(tuple(place), {})[str(variant)] = group

    def twin(row: pd.DataFrame) -> tuple[str | None, pd.DataFrame]:
        mine = row.iloc[0]
        there = {
            variant: of
            for variant, of in found.get(tuple(mine[PLACE]), {}).items()
            if all(_agree(mine[name], of[name].iat[0]) for name in ALIKE)
        }
        there = _of_equal_effort(there, tuned=bool(mine["tuned"]))
        nearest = twin_variant(str(mine["variant"]), there)
        return nearest, none if nearest is None else there[nearest]

    return twin
