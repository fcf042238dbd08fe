"""As much of a data set as can be known before its files are read: what a plan and an estimate go by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.api.dataset import DataSet
from bench.api.kinds import Input, Output
from bench.data.loading import load


class Outlined(Protocol):
    """n_train, n_val: images that train, that validate. fingerprint: of the arrays, empty where none were read."""

    @property
    def input(self) -> Input: ...
    @property
    def output(self) -> Output: ...
    @property
    def n_train(self) -> int: ...
    @property
    def n_val(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Outline:
    """A data set that was not read."""

    input: Input
    output: Output
    n_train: int
    n_val: int = 0
    fingerprint: str = ""


def outline(dataset: DataSet, *, data_dir: Path | None, val_fraction: float) -> Outlined:
    """By its card where that says all, else by its files. Raises: ConfigError, DataError."""
    card = dataset.card()
    if card.given is None or card.wanted is None or card.n_train is None:
        return load(dataset, data_dir=data_dir, val_fraction=val_fraction)
    n_val = round(val_fraction * card.n_train)
    return Outline(card.given, card.wanted, card.n_train - n_val, n_val)
