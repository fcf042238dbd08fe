"""Where a sweep stands: what of its plan has ended, what is at work, and how long the rest will take.

results/<experiment>/plan.json      the runs that the last command wanted, in its order
"""

import csv
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api.errors import StoreError
from bench.api.status import FINAL
from bench.record import forms
from bench.record.files import atomic_write, below, cause, json_bytes, read_regular
from bench.record.folder import RunFolder
from bench.record.locks import busy_since
from bench.record.reader import PLAN, folders

NAMES = ("run_id", "dataset", "net", "method", "seed", "epochs")
ALIKE: tuple[tuple[str, ...], ...] = (("dataset", "net", "method"), ("dataset", "net"), ("dataset",), ())


@dataclass(frozen=True)
class AtWork:
    """A run that some process is busy with. epoch: how many are over; seconds: since it was begun or continued."""

    label: str
    epoch: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Standing:
    """An experiment's. ended: counts by status; waiting: runs not begun, or to be continued.

    remaining_s: of the work that is left, over as many runs at a time as are at work now; None where nothing tells.
    """

    experiment: str
    planned: int
    ended: Mapping[str, int]
    at_work: Sequence[AtWork]
    waiting: int
    remaining_s: float | None

    @property
    def is_done(self) -> bool:
        return sum(self.ended.values()) == self.planned


def save_plan(folder: Path, specs: Iterable[Mapping[str, Any]]) -> None:
    """Raises: StoreError where it cannot be written."""
    atomic_write(
        below(folder.parent, folder.name) / PLAN, json_bytes([{name: spec[name] for name in NAMES} for spec in specs])
    )


def standings(root: Path, problems: list[str] | None = None) -> list[Standing]:
    """Of an experiment's folder, or of all in a results folder.

    problems: where to say which plan or record is corrupt; a run with a corrupt record counts as ended, `unreadable`.
    Raises: StoreError where there is no plan; where one is corrupt, unless there is such a list.
    """
    root = root.resolve()  # the folder that the user names may be a link
    begun = planned(root, problems)
    if not begun:
        none = f"{root} holds no {PLAN}; name a folder in which `bench run` or `bench tune` has begun"
        raise StoreError(next(iter(problems or ()), none))
    found = []
    for folder in begun:
        try:
            found.append(_standing(folder, problems))
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return found


def planned(root: Path, problems: list[str] | None = None) -> list[Path]:
    """The folders with a plan: root itself, or those in it.

    problems: where to say which folders are links. Raises: StoreError where there is no such list.
    """
    if os.path.lexists(root / PLAN):
        return [root]
    return [path for path in folders(root, problems) if os.path.lexists(path / PLAN)] if root.is_dir() else []


def _standing(folder: Path, problems: list[str] | None) -> Standing:
    ended: dict[str, int] = {}
    seconds: list[tuple[Mapping[str, Any], float]] = []
    left: list[Mapping[str, Any]] = []
    at_work: dict[str, AtWork] = {}
    plan = plan_of(folder)
    for run in plan:
        of_run = RunFolder(folder.parent, folder.name, run["run_id"])
        try:
            summary = of_run.summary() or {}
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
            ended["unreadable"] = ended.get("unreadable", 0) + 1
            continue
        since = busy_since(of_run.path)
        if since is not None:
            at_work[run["run_id"]] = _at_work(run, of_run.path, max(0.0, time.time() - since))
            left.append(run)
        elif summary.get("status") in (*FINAL, "skipped"):
            ended[summary["status"]] = ended.get(summary["status"], 0) + 1
            seconds.append((run, float(summary.get("wall_s") or 0.0)))
        else:
            left.append(run)
    to_go = remaining(left, at_work, [(run, s) for run, s in seconds if s > 0], len(at_work))
    return Standing(folder.name, len(plan), ended, list(at_work.values()), len(left) - len(at_work), to_go)


def plan_of(folder: Path) -> list[dict[str, Any]]:
    """The runs that the last command wanted. Raises: StoreError where the plan is corrupt."""
    path = folder / PLAN
    try:
        return forms.plan(read_regular(path))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} is corrupt ({cause(error)}); start the same command again, it writes it anew"
        ) from error


def _at_work(run: Mapping[str, Any], path: Path, seconds: float) -> AtWork:
    label = f"{run['method']} on {run['net']}, {run['dataset']}, seed {run['seed']}"
    return AtWork(label, progress(path), run["epochs"], seconds)


def progress(path: Path) -> float:
    """The epochs that a run has behind it, by its curve."""
    try:
        lines = list(csv.DictReader(read_regular(path / "curve.csv").decode().splitlines()))
        return float(lines[-1]["epoch"])
    except (OSError, IndexError, KeyError, ValueError, TypeError, csv.Error):
        return 0.0


def remaining(
    left: Sequence[Mapping[str, Any]],
    at_work: Mapping[str, AtWork],
    seconds: Sequence[tuple[Mapping[str, Any], float]],
    slots: int,
) -> float | None:
    """By the median of finished runs that are most alike; of a run at work by its own epochs, once it has some.

    slots: runs at a time. Runs alike but for their epochs, as trials are, count by the epoch.
    """
    paces: dict[tuple[str, ...], dict[tuple[Any, ...], float]] = {}
    for names in ALIKE:
        of: dict[tuple[Any, ...], list[float]] = {}
        for run, s in seconds:
            of.setdefault(tuple(run[name] for name in names), []).append(s / run["epochs"])
        paces[names] = {key: statistics.median(some) for key, some in of.items()}
    work = 0.0
    for run in left:
        here = at_work.get(run["run_id"])
        if here is not None and here.epoch > 0:
            work += here.seconds * max(0.0, run["epochs"] / here.epoch - 1)
            continue
        keys = ((names, tuple(run[name] for name in names)) for names in ALIKE)
        pace = next((paces[names][key] for names, key in keys if key in paces[names]), None)
        if pace is None:
            return None
        work += max(0.0, pace * run["epochs"] - (here.seconds if here else 0.0))
    return work / max(1, slots)
