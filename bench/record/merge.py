"""Records from several folders as one: what several machines have measured of one experiment, or of several.

A run that is in two folders is one run. Where both have it to its end, they must agree: in how it ended, and in its
accuracies to the last digit. Of a point of scaling the times are what was measured, so two measurements of one point
contradict each other. Nothing is written before all of this is known.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.api.errors import StoreError
from bench.api.status import FINAL
from bench.record import scaling, searches
from bench.record.files import atomic_write
from bench.record.reader import Record, records
from bench.record.rows import Row, one
from bench.record.scaling import Point
from bench.record.schema import CUT
from bench.record.searches import Found

MUST_AGREE = ("status", "test_acc", "val_acc", CUT)
LAST = "summary.json"  # a record is whole once it has this


class Merged(NamedTuple):
    """How much there is, of each kind."""

    runs: int
    points: int


class Placed(NamedTuple):
    """A point of scaling. source: the folder that was named; path: its file."""

    source: Path
    path: Path
    point: Point


def merge(sources: Sequence[Path], out: Path, *, keep: Path | None = None) -> Merged:
    """Write the records below the sources into out/EXPERIMENT/RUN, with points of scaling and what searches found.

    Records that are in out already take part. keep: the source whose record stands where two contradict each other; of
    points, all of its row are then from there, for they are held against each other, and are of one machine.
    Raises: StoreError where one is corrupt, cannot be written, or contradicts another.
    """
    if keep is not None and keep.resolve() not in [source.resolve() for source in sources]:
        raise StoreError(f"--keep {keep} is none of the folders that are merged")
    there = [out] if out.is_dir() and any(out.iterdir()) else []
    runs: dict[tuple[str, str], list[tuple[Path, Row]]] = defaultdict(list)
    found: dict[str, list[list[Found]]] = defaultdict(list)
    points: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    for source in [*there, *sources]:
        for path, point in scaling.placed(source.resolve()):
            points[path.parent.parent.name, _row(point)].append(Placed(source, path, point))
        for record in records(source):
            runs[record.folder.name, record.run_id].append((source, one(record)))
        for folder in sorted({record.folder for record in records(source)}):
            found[folder.name].append(searches.load(searches.beside(folder)))
    chosen = {place: _agreed(versions, keep) for place, versions in runs.items()}
    measured = {place: _agreed_points(place[0], of, keep) for place, of in points.items()}
    winners = {name: _all_searches(name, lists) for name, lists in found.items()}
    for (experiment, run_id), row in chosen.items():
        _copy(row, out / experiment / run_id)
    for name, of_experiment in winners.items():
        if of_experiment:
            searches.save(of_experiment, searches.beside(out / name))
    for place, of_row in measured.items():
        for point in of_row:
            scaling.save(out / place[0], point)
        kept = {point.point_id for point in of_row}
        for path in [of.path for of in points[place] if of.source is out and of.point.point_id not in kept]:
            path.unlink()
    return Merged(len(chosen), sum(map(len, measured.values())))


def _row(point: Point) -> str:
    """What the points of several numbers of workers share: they are held against that of one."""
    of = ("method", "net", "dataset", "way", "batch_size", "settings", "net_settings", "device")
    return json.dumps({name: getattr(point, name) for name in of}, sort_keys=True)


def _agreed(versions: Sequence[tuple[Path, Row]], keep: Path | None) -> Row:
    """The one record of a run: what has ended before what has not, the first of several that agree."""
    ended = [(source, row) for source, row in versions if row.summary.get("status") in FINAL]
    if not ended:
        return max((row for _, row in versions), key=lambda row: row.finished_at or 0.0)
    if len({tuple(row.summary.get(name) for name in MUST_AGREE) for _, row in ended}) > 1:
        of_kept = [row for source, row in ended if keep is not None and source.resolve() == keep.resolve()]
        if not of_kept:
            raise StoreError(_contradiction(ended))
        return of_kept[0]
    return ended[0][1]


def _contradiction(ended: Sequence[tuple[Path, Row]]) -> str:
    spec = ended[0][1].spec
    told = "; ".join(f"{row.record.place} has {_ending(row)}" for _, row in ended)
    return (
        f"{spec['method']} on {spec['net']}, {spec['dataset']}, seed {spec['seed']} ended in two ways: {told}. "
        "Remove one of them, or choose a folder with --keep"
    )


def _ending(row: Row) -> str:
    return ", ".join(f"{name} {row.summary[name]}" for name in MUST_AGREE if row.summary.get(name) is not None)


def _agreed_points(experiment: str, several: Sequence[Placed], keep: Path | None) -> list[Point]:
    """Each point once, one that was reached before one that failed. Raises: StoreError."""
    agreed: dict[str, Placed] = {}
    for new in several:
        old = agreed.setdefault(new.point.point_id, new)
        if old.point.status == new.point.status == "ok" and _told(old.point) != _told(new.point):
            of_kept = [of.point for of in several if keep is not None and of.source.resolve() == keep.resolve()]
            if not of_kept:
                raise StoreError(_two_points(experiment, old, new))
            return of_kept
        if old.point.status != "ok":
            agreed[new.point.point_id] = new
    return [placed.point for placed in agreed.values()]


def _told(point: Point) -> dict[str, object]:
    """All that it says but when, and of which machine."""
    return point.model_dump(exclude={"date", "environment"})


def _two_points(experiment: str, old: Placed, new: Placed) -> str:
    of = new.point
    told = "; ".join(f"{p.path} has {p.point.images_per_s or 0:,.4g} images/s" for p in (old, new))
    return (
        f"{experiment}: {of.method} on {of.net}, {of.dataset}, {scaling.WAYS[of.way]}, {of.workers} "
        f"worker{'s' * (of.workers > 1)} ({of.kind}) was found in two ways: {told}. Merge into folders apart, or "
        "choose with --keep the folder whose points of this row stand"
    )


def _all_searches(experiment: str, lists: Iterable[Sequence[Found]]) -> list[Found]:
    """What several folders say of an experiment's searches: the first of each row. Raises: StoreError."""
    merged: dict[tuple[str, str, str, str], Found] = {}
    for row in (row for rows in lists for row in rows):
        known = merged.setdefault((row.method, row.net, row.dataset, row.variant), row)
        if known.best != row.best:
            raise StoreError(
                f"{experiment}: the search for {row.method} on {row.net}, {row.dataset} found {known.best} in one "
                f"folder and {row.best} in another; merge experiments of one search"
            )
    return list(merged.values())


def _copy(row: Row, target: Path) -> None:
    """All files but locks and what was half written; of a run that has ended, no checkpoint."""
    record: Record = row.record
    for name in sorted(record.names, key=lambda name: name == LAST):
        data = None if name.startswith(".") else record.read(name)
        if data is not None and Path(record.place) / name != target.resolve() / name:
            atomic_write(target / name, data)
