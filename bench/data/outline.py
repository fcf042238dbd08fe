"""As much of a data set as can be known before its files are read: what a plan and an estimate go by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.api.dataset import DataSet
from bench.data.loading import load


class Outlined(Protocol):
    """n_train, n_val: images that train, that validate. fingerprint: of the arrays, empty where none were read."""

    @property
    def n_classes(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def n_train(self) -> int: ...
    @property
    def n_val(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Outline:
    """A data set that was not read."""

    n_classes: int
    image_shape: tuple[int, int, int]
    n_train: int
    n_val: int = 0
    fingerprint: str = ""


def outline(dataset: DataSet, *, data_dir: Path | None, val_fraction: float) -> Outlined:
    """By its card where that says all, else by its files. Raises: ConfigError, DataError."""
    card = dataset.card()
    if card.image_shape is None or card.n_classes is None or card.n_train is None:
        return load(dataset, data_dir=data_dir, val_fraction=val_fraction)
    n_val = round(val_fraction * card.n_train)
    return Outline(card.n_classes, card.image_shape, card.n_train - n_val, n_val)
