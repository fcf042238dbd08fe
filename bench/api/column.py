"""What a measured quantity is called, how it is written, and which way is better: declared once, used everywhere."""

from dataclasses import dataclass
from typing import Literal

Value = float | int | str | None


@dataclass(frozen=True)
class Column:
    """A column of the run records.

    name: as in `summary.json` and in CSV files, with its unit (`train_s`, `gpu_peak_alloc_bytes`; fractions have none).
    title: its head in tables, with the unit that is shown there. what: one line for readers.
    scale: what a value is multiplied by where it is shown (100: a fraction as per cent; 2**-20: bytes as MiB).
    decimals: places behind the point; None for three significant digits.
    better: which way is better, if either is.
    interval: whether tables add the 95% interval over seeds to the mean.
    shown: the smallest table that has it: the `terminal`'s (hence all), the `page`'s, or CSV files alone.
    blank_at: a value that tables leave out because it says nothing. unless_equal: another column; where both agree,
        tables leave this one out.
    text: whether its values are words.
    timed: whether it is a time, a rate or an energy, which others' work on the machine falsifies.
    metric: the key of the metric that it is a value of, if any: it is shown only where some record holds it.
    bounds: the least and the greatest value that it can have, None where there is none.
    """

    name: str
    title: str
    what: str
    scale: float = 1.0
    decimals: int | None = None
    better: Literal["higher", "lower"] | None = None
    interval: bool = False
    shown: Literal["terminal", "page", "csv"] = "csv"
    blank_at: float | None = None
    unless_equal: str | None = None
    text: bool = False
    timed: bool = False
    metric: str = ""
    bounds: tuple[float | None, float | None] = (None, None)
