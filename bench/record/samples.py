"""From recorded runs to samples: a row of a table holds each seed once, over one data content, of one source and one
set of settings. What differs is told in the row's variant, or left out and counted.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bench.api.status import FINAL
from bench.record.rows import Row
from bench.record.schema import CUT

ASKED = frozenset(("run_id", "instruments", "metrics", "schema"))  # of a spec: decide no number of a run


class Sampled(NamedTuple):
    """The runs that are looked at, and how many are not.

    n_older: of older code. n_other_data: over other data. n_repeats: of one that is looked at, which they agree with.
    n_contradictions: of one that they do not agree with.
    """

    rows: list[Row]
    n_older: int = 0
    n_other_data: int = 0
    n_repeats: int = 0
    n_contradictions: int = 0


def sampled(rows: Sequence[Row], *, all_sources: bool = False) -> Sampled:
    """all_sources: keep runs of older code and over other data, which their variants then tell apart."""
    newest = list(rows) if all_sources else _of_newest(rows, lambda row: row.group, lambda row: row.source)
    over_one = newest if all_sources else _of_newest(newest, lambda row: row.data, lambda row: row.data_id)
    once = [_one(repeats) for repeats in _repeats(over_one)]
    n_apart = sum(row.n_contradictions for row in once)
    n_repeats = len(over_one) - len(once) - n_apart
    return Sampled(once, len(rows) - len(newest), len(newest) - len(over_one), n_repeats, n_apart)


def _of_newest(rows: Sequence[Row], group: Callable[[Row], object], kind: Callable[[Row], object]) -> list[Row]:
    """Of each group the rows of the kind of its newest row; all of them where no row knows when it ended."""
    last: dict[object, Row] = {}
    for row in rows:
        if row.finished_at is not None:
            known = last.setdefault(group(row), row)
            if row.finished_at > (known.finished_at or 0):
                last[group(row)] = row
    return [row for row in rows if group(row) not in last or kind(row) == kind(last[group(row)])]


def _repeats(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The runs of one spec, but for what they were asked to measure besides."""
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        asked = {name: value for name, value in row.spec.items() if name not in ASKED}
        alike[json.dumps([asked, row.summary.get(CUT), row.primary], sort_keys=True)].append(row)
    yield from alike.values()


def _one(repeats: Sequence[Row]) -> Row:
    """One run for all: what ended, and ended last, with what the others have measured besides if they agree with it."""
    if len(repeats) == 1:
        return repeats[0]
    best, *others = sorted(
        repeats, key=lambda row: (row.summary.get("status") in FINAL, row.finished_at or 0.0, row.run_id), reverse=True
    )
    agreed = [row for row in others if row.outcome == best.outcome]
    ended = [row for row in others if row.summary.get("status") in FINAL]
    best = replace(best, n_contradictions=sum(row not in agreed for row in ended))
    if best.summary.get("status") != "ok" or not agreed:
        return best
    summary, columns = dict(best.summary), {column.name: column for column in best.columns}
    for row in agreed:
        summary = {**row.summary, **{name: value for name, value in summary.items() if value is not None}}
        columns = {column.name: column for column in row.columns} | columns
    asked = sorted({name for row in (best, *agreed) for name in row.spec.get("instruments", ())})
    spec = {**best.spec, "instruments": asked}
    beside = tuple(row.record for row in agreed)
    return replace(best, spec=spec, summary=summary, columns=tuple(columns.values()), beside=beside)


def labelled(rows: Sequence[Row], *, apart_from: Collection[str] = ()) -> list[Row]:
    """Each row with the protocol and settings in which it differs from others of its group, in the order of tables.

    Settings are compared under one protocol. One that an older record lacks is taken to be that of its peers. That
    batches were cut is said in any case. What a search has chosen is not, unless it is all that tells two rows apart.
    apart_from: those that shall set no rows apart.
    """
    settings = [_without(row.settings, apart_from) for row in rows]
    whole = [_without(row.all_settings, apart_from) for row in rows]
    names: list[set[str]] = [{CUT} & set(chosen) for chosen in settings]

    def tell_apart(of: Sequence[Mapping[str, Any]], key: Callable[[int], object], only: Callable[[str], bool]) -> None:
        for members in _grouped(len(rows), key):
            differing = {name for name in _differing([of[k] for k in members]) if only(name)}
            for k in members:
                names[k] |= differing & of[k].keys()

    tell_apart(settings, lambda k: rows[k].group, lambda name: name == "protocol")
    tell_apart(settings, lambda k: (rows[k].group, rows[k].protocol), lambda name: name != "protocol")
    tell_apart(whole, lambda k: (rows[k].group, _label(settings[k], names[k])), lambda _: True)
    named = [replace(row, variant=_label({**whole[k], **settings[k]}, names[k])) for k, row in enumerate(rows)]
    return sorted(named, key=lambda row: (*row.group, row.variant, row.spec["seed"], row.run_id))


def _label(settings: Mapping[str, Any], names: Collection[str]) -> str:
    return ", ".join(f"{name}={settings[name]}" for name in sorted(names))


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _differing(several: Sequence[Mapping[str, Any]]) -> set[str]:
    """The settings that have more than one value."""
    values: dict[str, set[str]] = defaultdict(set)
    for settings in several:
        for name, value in settings.items():
            values[name].add(json.dumps(value, sort_keys=True))
    return {name for name, of in values.items() if len(of) > 1}


def _grouped(n: int, key: Callable[[int], object]) -> list[list[int]]:
    found: dict[object, list[int]] = defaultdict(list)
    for k in range(n):
        found[key(k)].append(k)
    return list(found.values())
