"""The metric that rows are judged by: which columns hold it, which way is better, and how its values are told."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from bench.api.column import Column
from bench.record.schema import FIRST_METRIC, PRIMARY

PERCENT = 100


@dataclass(frozen=True)
class Primary:
    """A primary metric, by the column that declares its value on the test split."""

    column: Column

    @property
    def key(self) -> str:
        return self.column.name.removeprefix("test_")

    @property
    def test(self) -> str:
        """The column of the test split."""
        return self.column.name

    @property
    def val(self) -> str:
        """The column of the validation split, in runs and in curves."""
        return f"val_{self.key}"

    @property
    def word(self) -> str:
        """As in `accuracy` or `RMSE`."""
        return "accuracy" if self.key == FIRST_METRIC else self.column.title.removeprefix("test ").partition(", ")[0]

    @property
    def unit(self) -> str:
        """As in `%`; empty where it has none."""
        return self.column.title.partition(", ")[2]

    def axis(self, split: str) -> str:
        """The title of an axis, as `test accuracy, %`."""
        return f"{split} {self.word}{f', {self.unit}' if self.unit else ''}"

    @property
    def scale(self) -> float:
        return self.column.scale

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value as shown, infinite where there is none."""
        low, high = self.column.bounds
        return (-float("inf") if low is None else low * self.scale, float("inf") if high is None else high * self.scale)

    @property
    def is_percentage(self) -> bool:
        """Whether it is shown in percent of which 100 is best."""
        return self.higher and self.bounds == (0, PERCENT)

    @property
    def higher(self) -> bool:
        """Whether higher is better."""
        return self.column.better != "lower"

    def gain(self, value: float) -> float:
        """What is higher the better the value is."""
        return value if self.higher else -value

    def direction(self, difference: float) -> Literal["higher", "lower"]:
        return "higher" if difference > 0 else "lower"

    def told(self, direction: str) -> str:
        """`higher` or `lower`, with what that means where it may not be taken for granted: `lower (better)`."""
        if self.higher or direction not in ("higher", "lower"):
            return direction
        return f"{direction} ({'better' if direction == 'lower' else 'worse'})"

    @property
    def is_absolute(self) -> bool:
        """Whether a difference means the same everywhere: it has a greatest value, as shares and R2 do."""
        return self.column.bounds[1] is not None

    def size(self, fraction: float, reference: float) -> float:
        """A difference in its own unit: the fraction itself, or that part of the reference's value."""
        return fraction if self.is_absolute else fraction * abs(reference)

    def size_words(self, fraction: float, reference: str) -> str:
        """As in `1 point`, `0.01` of R2, or `1% of backprop's`."""
        if not self.is_absolute:
            return f"{100 * fraction:g}% of {reference}"
        shown = f"{self.scale * fraction:g}"
        return shown if self.scale != PERCENT else f"{shown} point{'' if shown == '1' else 's'}"


ACCURACY = Primary(
    Column("test_acc", "test acc, %", "", 100.0, 2, "higher", True, metric=FIRST_METRIC, bounds=(0.0, 1.0))
)  # as the metric declares it, for what has no declaration at hand


def primaries(keys: Iterable[str], columns: Iterable[Column]) -> list[Primary]:
    """Those of these keys that a column declares, accuracy first."""
    known = {column.name: column for column in columns}
    wanted = sorted(set(keys), key=lambda key: (key != FIRST_METRIC, key))
    found = [known.get(f"test_{key}", ACCURACY.column if key == FIRST_METRIC else None) for key in wanted]
    return [Primary(column) for column in found if column is not None]


def keys_of(runs: pd.DataFrame) -> "pd.Series[str]":
    """Of each run, the key of its primary metric."""
    if PRIMARY not in runs:
        return pd.Series(FIRST_METRIC, index=runs.index, dtype=object)
    keys: pd.Series[str] = runs[PRIMARY].fillna(FIRST_METRIC)
    return keys


def apart(runs: pd.DataFrame, several: Sequence[Primary]) -> Iterator[tuple[Primary, pd.DataFrame]]:
    """The runs of each primary metric: values of different ones are never compared or pooled."""
    keys = keys_of(runs)
    for primary in several:
        of = runs[keys == primary.key]
        if len(of) or len(several) == 1:
            yield primary, of


def arranged(columns: Iterable[Column], keys: Collection[str], held: Collection[str]) -> list[Column]:
    """The columns of tables: primary metrics first, then other metrics as far as any record holds them, then the rest.

    keys: of the primary metrics, whose values on the test split stand in the smallest table. held: names of columns.
    """
    columns = list(columns)
    of_metrics = [column for column in columns if column.metric]
    keys = {column.metric for column in of_metrics}.intersection(keys) or {FIRST_METRIC}
    first = [_shown_first(column) for key in sorted(set(keys), key=lambda key: (key != FIRST_METRIC, key))
             for column in of_metrics if column.metric == key]  # fmt: skip
    others = [column for column in of_metrics if column.metric not in keys and column.name in held]
    return [*first, *others, *(column for column in columns if not column.metric)]


def _shown_first(column: Column) -> Column:
    in_terminal = column.name in (f"test_{column.metric}", f"test_{column.metric}_noise_free")
    return replace(column, shown="terminal") if in_terminal else column
