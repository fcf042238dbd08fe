"""A report that keeps up with a sweep: written anew when records have changed, until the sweep's plan is done."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event

from bench.api.errors import StoreError
from bench.record.changes import Stamp, stamp
from bench.record.standing import Standing, planned, standings
from bench.report.render_html import Watched, still


@dataclass(frozen=True)
class Seen:
    """The records at one moment. standings: of the sweeps that have begun, None where none has."""

    stamp: Stamp
    standings: list[Standing] | None

    @property
    def is_done(self) -> bool:
        return self.standings is not None and all(standing.is_done for standing in self.standings)

    @property
    def words(self) -> str:
        if self.standings is None:
            return "no sweep has begun"
        ended = sum(sum(standing.ended.values()) for standing in self.standings)
        planned = sum(standing.planned for standing in self.standings)
        at_work = [f"{run.label}, epoch {run.epoch:g} of {run.epochs}" for s in self.standings for run in s.at_work]
        return "; ".join([f"{ended} of {planned} runs have ended", *(f"at work: {run}" for run in at_work)])


def seen(root: Path) -> Seen:
    """Raises: StoreError where a plan or a record is corrupt."""
    found = stamp(root)
    return Seen(found, standings(root, []) if planned(root, []) else None)


def watch(
    root: Path,
    write: Callable[[Watched | None], Path],
    *,
    every_s: float,
    stop: Event,
    tell: Callable[[str], None],
) -> None:
    """Write whenever records have changed, at most every so many seconds, until all is done or `stop` is set.

    write: gives the path of the report's page; the last one that it writes, or that stands, is not watched any more.
    Raises: StoreError where root is no folder, a plan is corrupt, or nothing can be written.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is no folder; name the results folder")
    last: Stamp | None = None
    page: Path | None = None
    waited = False
    while True:
        began = time.monotonic()
        now = seen(root)
        if now.is_done:
            write(None)
            tell(f"done: {now.words}")
            return
        if not now.stamp:
            if not waited:
                tell(f"waiting for runs in {root}")
            waited = True
        elif now.stamp != last:
            page = write(Watched(f"{datetime.now():%H:%M:%S}", now.words, every_s))
            tell(f"written {datetime.now():%H:%M:%S}: {now.words}")
            last = now.stamp
        if stop.wait(max(0.0, every_s - (time.monotonic() - began)) or 0.1):
            if page is not None:
                still(page)
            tell("stopped on request; the report stays as it is")
            return
