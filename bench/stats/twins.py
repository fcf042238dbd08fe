"""Backprop's row on the same data set and net: what every other row is held against."""

from collections.abc import Collection

import pandas as pd

REFERENCE = "backprop"


def twin_variant(variant: str, available: Collection[str]) -> str | None:
    """Backprop under the same settings, else under its defaults, else in the one form that ran."""
    if variant in available:
        return variant
    if "" in available:
        return ""
    return next(iter(available)) if len(available) == 1 else None


def twin(runs: pd.DataFrame, dataset: str, net: str, variant: str) -> tuple[str | None, pd.DataFrame]:
    """The variant of the twin of a row, None where it has none, and the twin's runs."""
    on_net = runs[(runs["method"] == REFERENCE) & (runs["dataset"] == dataset) & (runs["net"] == net)]
    nearest = twin_variant(variant, set(on_net["variant"]))
    return nearest, on_net[on_net["variant"] == nearest]
