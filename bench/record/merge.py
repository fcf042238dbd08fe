"""Records from several folders as one: what several machines have measured of one experiment, or of several.

A run that is in two folders is one run. Where both have it to its end, they must agree: in how it ended, and in its
accuracies to the last digit. Of a point of scaling the times are what was measured, so two measurements of one point
contradict each other. Nothing is written before all of this is known.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.api.errors import StoreError
from bench.api.status import FINAL, RESUMABLE
from bench.record import scaling, searches
from bench.record.files import SAFE_NAME, is_link
from bench.record.folder import RunFolder
from bench.record.locks import busy_since, locked
from bench.record.reader import is_run, records
from bench.record.rows import Row, one
from bench.record.scaling import Point
from bench.record.schema import CUT, WEIGHTS
from bench.record.searches import Found


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
    A run of out is written under its lock, and a kill at any moment leaves it as it was, as it shall be, or not ended:
    the same command goes on.
    Raises: StoreError where a record is corrupt, cannot be written, contradicts another, or is at work in out.
    """
    if keep is not None and keep.resolve() not in [source.resolve() for source in sources]:
        raise StoreError(f"--keep {keep} is none of the folders that are merged")
    if (os.path.lexists(out) or is_link(out)) and not out.is_dir():
        raise StoreError(f"--out {out} is no folder; name one that is, or a new one")
    there = [out] if out.is_dir() else []
    runs: dict[tuple[str, str], list[tuple[Path, Row]]] = defaultdict(list)
    found: dict[str, list[list[Found]]] = defaultdict(list)
    points: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    stood: dict[str, Mapping[str, Any]] = {}  # how the runs of out ended, by their folder
    for source in [*there, *sources]:
        for path, point in scaling.placed(source.resolve()):
            points[path.parent.parent.name, _row(point)].append(Placed(source, path, point))
        of_source = records(source, may_be_empty=source is out)
        for record in of_source:
            row = one(record)
            runs[record.folder.name, record.run_id].append((source, row))
            if source is out:
                stood[record.place] = row.summary
        for folder in sorted({record.folder for record in of_source}):
            found[folder.name].append(searches.load(searches.beside(folder)))
    chosen = {place: _agreed(versions, keep) for place, versions in runs.items()}
    measured = {place: _agreed_points(place[0], of, keep) for place, of in points.items()}
    for name, lists in found.items():
        _all_searches(name, lists)
    root = out.resolve()
    copies = {RunFolder(root, *place): row for place, row in chosen.items() if row.record.folder != root / place[0]}
    for target in copies:
        _refuse_work(target)
    for target, row in copies.items():
        _copy(row, target, stood.get(str(target.path), {}))
    for name, lists in found.items():
        _save_searches(name, lists, searches.beside(root / name))
    for place, of_row in measured.items():
        for point in of_row:
            scaling.save(root / place[0], point)
        kept = {point.point_id for point in of_row}
        for path in [of.path for of in points[place] if of.source is out and of.point.point_id not in kept]:
            path.unlink(missing_ok=True)
    return Merged(len(chosen), sum(map(len, measured.values())))


def _row(point: Point) -> str:
    """What the points of several numbers of workers share: they are held against that of one."""
    of = ("method", "net", "dataset", "way", "batch_size", "settings", "net_settings", "device")
    return json.dumps({name: getattr(point, name) for name in of}, sort_keys=True)


def _agreed(versions: Sequence[tuple[Path, Row]], keep: Path | None) -> Row:
    """The one record of a run: one that has ended before one that has not, then one with weights, then the first."""
    ended = [(source, row) for source, row in versions if row.summary.get("status") in FINAL]
    if not ended:
        return max((row for _, row in versions), key=lambda row: row.finished_at or 0.0)
    if any(_outcome(row) != _outcome(ended[0][1]) for _, row in ended):
        of_kept = [row for source, row in ended if keep is not None and source.resolve() == keep.resolve()]
        if not of_kept:
            raise StoreError(_contradiction(ended))
        return of_kept[0]
    return next((row for _, row in ended if WEIGHTS in row.record.names), ended[0][1])


def _contradiction(ended: Sequence[tuple[Path, Row]]) -> str:
    spec = ended[0][1].spec
    told = "; ".join(f"{row.record.place} has {_ending(row)}" for _, row in ended)
    return (
        f"{spec['method']} on {spec['net']}, {spec['dataset']}, seed {spec['seed']} ended in two ways: {told}. "
        "Remove one of them, or choose a folder with --keep"
    )


def _ending(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in _outcome(row).items() if value is not None)


def _outcome(row: Row) -> dict[str, Any]:
    return {**row.outcome, CUT: row.summary.get(CUT)}


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
    told = "; ".join(f"{p.path} has {p.point.images_per_s or 0:,.4g} examples/s" for p in (old, new))
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


def _save_searches(experiment: str, lists: Sequence[Sequence[Found]], folder: Path) -> None:
    """With what another process may have saved meanwhile. Raises: StoreError."""
    if any(lists):
        with locked(folder / ".lock"):
            searches.save(_all_searches(experiment, [searches.load(folder), *lists]), folder)


def _refuse_work(folder: RunFolder) -> None:
    """Raises: StoreError where some process is at work on the run."""
    folder.check()
    if busy_since(folder.path) is not None:
        raise StoreError(f"{folder.path} is at work; wait for its end or stop it, then run the same command again")


def _copy(row: Row, target: RunFolder, stood: Mapping[str, Any]) -> None:
    """Make the target's record that of the row, under its lock; of a run that has ended, no checkpoint.

    stood: the target's closing record when it was read. Raises: StoreError where the run was begun or ended since.
    """
    lock = target.path / ".lock"
    with locked(lock, patience_s=0.2, stays=os.path.lexists(lock)):
        if is_run(target.path) and (target.summary() or {}) != stood:
            raise StoreError(f"{target.path} has changed meanwhile; run the same command again")
        names = {name for name in row.record.names if SAFE_NAME.fullmatch(name)}
        if row.summary.get("status") in FINAL and row.summary["status"] not in RESUMABLE:
            names.discard(target.checkpoint.name)
        target.replace({name: data for name in sorted(names) if (data := row.record.read(name)) is not None})
