"""From records to rows, a run each: what it is known by, and its values."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.api.status import FINAL
from bench.experiment import budget
from bench.record import forms
from bench.record.reader import Record
from bench.record.schema import (
    CONDITIONS,
    CUT,
    FIRST_METRIC,
    IDENTITY,
    NOT_SETTINGS,
    PRIMARY,
    SCHEMA,
    SOURCES,
    UNVARIED,
)

T = TypeVar("T")

RUNNING = "running"  # as tables say it; no summary does
_SPEC = ("method", "net", "dataset", "seed", "epochs", "batch_size")


@dataclass(frozen=True)
class Row:
    """One run as it was recorded. columns: those that its record declares; variant: its label among its peers.

    beside: records of the same run, made again to measure something else, whose tables are its own, too.
    n_contradictions: such records that ended otherwise. primary: the key of the metric that it is judged by.
    """

    record: Record
    spec: Mapping[str, Any]
    summary: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    columns: tuple[Column, ...]
    variant: str = ""
    beside: tuple[Record, ...] = ()
    n_contradictions: int = 0
    primary: str = FIRST_METRIC

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def group(self) -> tuple[str, str, str, bool]:
        """What its peers share with it: data set, net and method, and whether it was trained."""
        return self.spec["dataset"], self.spec["net"], self.spec["method"], self.probe_only

    @property
    def probe_only(self) -> bool:
        """Whether the run was set up and probed, but not trained."""
        return bool(self.spec.get("probe_only"))

    @property
    def data(self) -> tuple[str, object]:
        """What names the data: the set, and the part that is held out for validation."""
        return self.spec["dataset"], self.spec.get("val_fraction")

    @property
    def data_id(self) -> str:
        """The data's content, as a hash."""
        return str(self.spec.get("data_id", ""))

    @property
    def conditions(self) -> str:
        """What two methods must share for their difference to be theirs, but for data and net: as JSON."""
        # an older record lacks a later setting, where a newer one has it at its default
        told = {name: value for name in CONDITIONS if (value := self.spec.get(name, "")) not in ("", "auto", [], {})}
        return json.dumps(told, sort_keys=True)

    def holder(self, name: str) -> Record:
        """The record that has a file, the run's own first."""
        return next((r for r in (self.record, *self.beside) if self.beside and name in r.names), self.record)

    @property
    def names(self) -> set[str]:
        """All files of the run."""
        return {name for record in (self.record, *self.beside) for name in record.names}

    @property
    def all_settings(self) -> dict[str, Any]:
        """All that its numbers follow from, but for seed and code: no two rows of one table line differ in it."""
        outer = {name: value for name, value in self.spec.items() if name not in NOT_SETTINGS}
        inner = {**self.spec.get("net_settings", {}), **self.spec.get("method_settings", {})}
        return {**outer, **inner, "data": self.data_id[:16], PRIMARY: self.primary}

    @property
    def settings(self) -> dict[str, Any]:
        """What else than a seed may tell two rows of a group apart; what a search has chosen does not."""
        chosen = {**self.spec.get("net_settings", {}), **self.spec.get("method_settings", {})}
        tuned = self.spec.get("tuned", ())
        outer = {name: value for name, value in self.spec.items() if name not in UNVARIED}
        outer["tuned"] = "+".join(tuned) or "no"
        outer["protocol"], outer["budget"] = self.protocol, budget.words(self.spec)
        outer[PRIMARY] = self.primary
        if budget.kind(self.spec) == "epochs":
            outer |= {"budget": "epochs", "epochs": self.spec["epochs"]}
        if self.summary.get(CUT):
            outer[CUT] = self.summary[CUT]
        return outer | {name: value for name, value in chosen.items() if name not in tuned}

    @property
    def protocol(self) -> budget.Protocol:
        """Its budget was the same for all, or its own."""
        return budget.protocol(self.spec)

    @property
    def outcome(self) -> dict[str, Any]:
        """How it ended: in this, two records of one run must agree."""
        return {name: self.summary.get(name) for name in ("status", f"test_{self.primary}", f"val_{self.primary}")}

    @property
    def source(self) -> tuple[Any, ...]:
        """The code that made it."""
        return tuple(self.spec.get(name) for name in SOURCES)

    @property
    def finished_at(self) -> float | None:
        """Unix seconds; None in records that do not know."""
        at = self.summary.get("finished_at")
        return None if at is None else float(at)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The closing record, with what names the run."""
        stood = {"status": "interrupted", "reason": "stopped before its end", **self.summary}
        if stood["status"] not in FINAL and self.record.is_busy():
            stood |= {"status": RUNNING, "reason": "at work"}
        return {
            **stood,
            **{name: self.spec[name] for name in _SPEC},
            "run_id": self.run_id,
            "experiment": self.record.folder.name,
            "protocol": self.protocol,
            "budget": budget.words(self.spec),
            "device": self.spec.get("device"),
            "env_id": None if self.environment is None else self.environment.get("env_id"),
            "variant": self.variant,
        }


def read(records: Iterable[Record], problems: list[str] | None = None) -> list[Row]:
    """The rows as recorded, in no order. A run that is in several experiments is one: what ended, and ended last.

    problems: where to say what is left out because its record is corrupt. Raises: StoreError where there is none.
    """
    rows: dict[str, Row] = {}
    for record in records:
        try:
            row = one(record)
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        known = rows.get(row.run_id)
        if known is None or _weight(row) > _weight(known):
            rows[row.run_id] = row
    return _judged(list(rows.values()))


def _judged(rows: list[Row]) -> list[Row]:
    """The rows; one whose record names no primary metric has that of rows on its data that were asked the same."""
    known = {_asked(row): row.primary for row in rows if PRIMARY in row.summary}
    certain = [PRIMARY in row.summary or row.summary.get("status") == "ok" for row in rows]
    return [
        row if sure else replace(row, primary=known.get(_asked(row), row.primary))
        for row, sure in zip(rows, certain, strict=True)
    ]


def _asked(row: Row) -> tuple[str, tuple[str, ...]]:
    return row.spec["dataset"], tuple(row.spec.get("metrics", ()))


def parsed(record: Record, name: str, parse: Callable[[bytes], T]) -> T | None:
    """What is in a file, or None where there is none. Raises: StoreError where it cannot be parsed."""
    data = record.read(name)
    try:
        return None if data is None else parse(data)
    except (ValueError, RecursionError) as error:
        raise record.corrupt(name, error) from error


def one(record: Record) -> Row:
    """Raises: StoreError naming a corrupt file."""
    spec = migrated(parsed(record, "spec.json", forms.spec) or {}, record)
    try:
        forms.checked(spec, forms.SpecForm)
    except ValueError as error:
        raise record.corrupt("spec.json", error) from error
    summary = parsed(record, "summary.json", forms.summary) or {}
    environment = parsed(record, "env.json", forms.environment)
    columns = parsed(record, "columns.json", _columns) or ()
    return Row(record, spec, summary, environment, columns, primary=str(summary.get(PRIMARY) or FIRST_METRIC))


def migrated(spec: dict[str, Any], record: Record) -> dict[str, Any]:
    """A spec in the present form. Raises: StoreError where it is of a later one, which may mean something else."""
    schema = spec.get("schema", 0)
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise record.corrupt("spec.json", "'schema' is no number")
    if schema > SCHEMA:
        raise StoreError(
            f"{record.place} has schema {schema}, and this version reads up to {SCHEMA}: a newer version made it; "
            "upgrade backprop-free-bench to read it"
        )
    if schema < 1:  # angles were a setting before they were an instrument
        angles = spec.pop("alignment", None)
        spec.setdefault("instruments", ["alignment"] if angles else [])
    return spec | {"schema": SCHEMA}


def _weight(row: Row) -> tuple[bool, float]:
    return row.summary.get("status") in FINAL, row.finished_at or 0.0


def _columns(data: bytes) -> tuple[Column, ...]:
    columns = forms.columns(data)
    for column in columns:
        if column.name in (*IDENTITY, "variant"):
            raise ValueError(f"'{column.name}' names runs, and is no quantity")
    return columns
