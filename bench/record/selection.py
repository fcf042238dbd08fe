"""Which runs of a folder are looked at: those that have one of the named values in each named field."""

from collections.abc import Iterable, Mapping, Sequence

from bench.api.errors import ConfigError, unknown
from bench.record.rows import Row

Selection = Mapping[str, Sequence[str]]

FIELDS = tuple("method dataset net seed protocol status experiment device".split())


def selection(text: str) -> Selection:
    """`'method=noprop-dt,backprop dataset=mnist'` as a mapping. Raises: ConfigError naming what is none."""
    chosen: dict[str, list[str]] = {}
    for part in text.split():
        name, equals, values = part.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--select: '{part}' is no condition; write it as FIELD=VALUE[,VALUE...]")
        chosen[name] = [value for value in values.split(",") if value]
    return chosen


def selected(rows: Sequence[Row], select: Selection) -> list[Row]:
    """The rows that meet every condition: on what names a run, or on one of its settings.

    Raises: ConfigError for a field that no run has, or a value by which none is left.
    """
    for name, values in select.items():
        seen = {_value(row, name) for row in rows} - {None}
        if not seen:
            settings = {setting for row in rows for setting in row.settings}
            raise ConfigError(f"--select: {unknown('field', name, {*FIELDS, *settings})}")
        rows = [row for row in rows if _value(row, name) in values]
        if not rows:
            raise ConfigError(f"--select {name}={','.join(values)}: no run has that; there is {_some(seen)}")
    return list(rows)


def _value(row: Row, name: str) -> str | None:
    value = row.values[name] if name in FIELDS else row.settings.get(name)
    return None if value is None else str(value)


def _some(values: Iterable[str | None], most: int = 10) -> str:
    known = sorted(str(value) for value in values)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
