"""Each run of a plan: its state, where it is, and why it did not end well."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.api.errors import StoreError
from bench.api.status import FINAL
from bench.record import jobs
from bench.record.folder import RunFolder
from bench.record.locks import busy_since
from bench.record.standing import plan_of, planned, progress


class State(NamedTuple):
    """One run. state: as its record has it, or at work, queued, waiting. Empty where a thing is not known."""

    experiment: str
    run_id: str
    label: str
    node: str
    job: str
    state: str
    error: str


def states(root: Path, problems: list[str]) -> Iterator[State]:
    """The runs of the plan of an experiment's folder, or of all in a results folder, in order.

    problems: where to say which plans are corrupt.
    """
    for folder in planned(root.resolve(), problems):
        try:
            runs = plan_of(folder)
        except StoreError as error:
            problems.append(str(error))
            continue
        for run in runs:
            record = RunFolder(folder.parent, folder.name, run["run_id"])
            label = f"{run['method']} on {run['net']}, {run['dataset']}, seed {run['seed']}"
            yield State(folder.name, run["run_id"], label, *_found(record, run["epochs"]))


def _found(record: RunFolder, epochs: int) -> tuple[str, str, str, str]:
    """Node, job, state and error."""
    note = jobs.read(record)
    try:
        summary = record.summary() or {}
    except StoreError as error:
        return note.node, note.job, "unreadable", str(error)
    status = summary.get("status")
    if busy_since(record.path) is not None:
        return note.node, note.job, f"at work, epoch {progress(record.path):g} of {epochs}", ""
    if status in (*FINAL, "skipped"):
        return note.node, note.job, str(status), "" if status == "ok" else str(summary.get("reason") or "")
    waits = "queued" if note.job else "waiting"
    return note.node, note.job, f"{status}, {waits}" if status else waits, str(summary.get("reason") or "")
