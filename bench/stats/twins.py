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


def twin(runs: pd.DataFrame, row: pd.DataFrame) -> tuple[str | None, pd.DataFrame]:
    """The variant of the twin of a row, None where it has none, and the twin's runs. row: the runs of the row.

    It has the row's data set, net and protocol, and the net's settings where backprop ran under these.
    """
    mine = row.iloc[0]
    theirs = runs[runs["method"].to_numpy() == REFERENCE]  # few of many: found first
    for name in ("dataset", "net", "protocol"):
        theirs = theirs[theirs[name].to_numpy() == mine[name]]
    same_net = theirs[theirs["net_settings"].to_numpy() == mine["net_settings"]]
    theirs = theirs if same_net.empty else same_net
    nearest = twin_variant(str(mine["variant"]), set(theirs["variant"]))
    return nearest, theirs[theirs["variant"].to_numpy() == nearest]
