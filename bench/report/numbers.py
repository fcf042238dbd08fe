"""How numbers are written: by the column that declares them, or as what nobody measured."""

import math

import numpy as np
import pandas as pd

from bench.api.column import Column
from bench.record.spreadsheet import cell


def shown(column: Column, mean: float, half_width: float = math.nan) -> str:
    """A mean, with its interval where the column has one and writes decimals or is a metric's: `98.22 ± 1.10`, or
    `98.22 (n=1)`.

    Empty where there is none, and at the value of which the column says that it tells nothing.
    """
    if math.isnan(mean) or mean == column.blank_at:
        return ""
    signed = "+" if column.name.endswith("_diff") else ""
    text = _number(in_unit(column, mean), column.decimals, signed)
    if not column.interval or (column.decimals is None and not column.metric):
        return text
    if math.isnan(half_width):
        return f"{text} (n=1)"
    places = decimals_of(column, mean)
    return f"{in_unit(column, mean):{signed}.{places}f} ± {in_unit(column, half_width):.{places}f}"


def in_unit(column: Column, value: float) -> float:
    """The value in the unit that the column's title names."""
    return column.scale * value


def decimals_of(column: Column, value: float) -> int:
    """Places behind the point: the column's, else those of three significant digits."""
    if column.decimals is not None:
        return column.decimals
    size = abs(in_unit(column, value))
    return max(0, 2 - math.floor(math.log10(size))) if size > 0 else 0


def exact(value: float) -> str:
    """A number that nobody measured, such as a seed or a count: never rounded, and without separators."""
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    return "" if math.isnan(value) else f"{value:.15g}"


def percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def csv(frame: pd.DataFrame) -> bytes:
    """The table as CSV, at a precision at which 0.97 reads as such and a seed as a whole number."""
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    frame = frame.assign(**{name: frame[name].map(cell) for name in texts}).rename(columns=cell)
    return frame.to_csv(index=False, float_format="%.15g").encode(errors="replace")


def _number(value: float, decimals: int | None, signed: str = "") -> str:
    if decimals is not None:
        return f"{value:{signed}.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
