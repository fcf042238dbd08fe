"""All that was measured below a folder, as frames. One reading, at first use; tables, figures and users share it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from bench.api.column import Column
from bench.api.errors import ConfigError, StoreError
from bench.record import primary, rows, samples, scaling, searches
from bench.record.files import csv_rows
from bench.record.primary import Primary
from bench.record.reader import records
from bench.record.rows import Row, parsed
from bench.record.schema import CURVE, FIRST_METRIC, IDENTITY, KEY, PRIMARY, WORDS
from bench.record.searches import Found
from bench.record.selection import Selection, selected

if TYPE_CHECKING:
    from bench.api.artifact import Artifact
    from bench.catalog.catalog import Catalog

T = TypeVar("T")

MARGIN = 0.01
NUMBER = re.compile(r"(?:[-+]?(?:[0-9]{1,40}\.?[0-9]*(?:e[-+]?[0-9]{1,3})?|inf|nan))?", re.I)
FIELD = re.compile("[a-z][A-Za-z0-9_]{0,99}")  # of a curve, beside those that all have
TAIL_BYTES, TAIL_LINES = 4000, 20


class Results:
    """The records below a folder: of one run, an experiment, or several; in run folders, packed, or both.

    columns: the declared quantities. all_sources: keep also the rows that older code has made. select: leave out runs
    without these values. For who judges them, as fractions: margin, within which two test accuracies are equivalent;
    target, a validation accuracy to be reached (None: one that follows from backprop's).
    lenient: leave out what is corrupt and say so in `problems`. Otherwise every property raises StoreError, naming the
    file and the mend, where a record is corrupt or there is none.
    catalog: what methods and data sets say of themselves; for who cites them.
    """

    def __init__(
        self,
        root: Path,
        *,
        columns: Sequence[Column],
        all_sources: bool = False,
        select: Selection | None = None,
        margin: float = MARGIN,
        target: float | None = None,
        lenient: bool = False,
        catalog: "Catalog | None" = None,
    ) -> None:
        self.root = root
        self.select = select or {}
        self.catalog = catalog
        self._problems: list[str] | None = [] if lenient else None
        self.margin, self.target = margin, target
        self._declared = columns
        self._all_sources = all_sources

    @property
    def lenient(self) -> bool:
        """Whether what is corrupt is left out."""
        return self._problems is not None

    def left_out(self, problem: str) -> None:
        """Add a line to `problems`, if lenient."""
        if self._problems is not None:
            self._problems.append(problem)

    @property
    def problems(self) -> list[str]:
        """What was left out, a line each, as far as it has been read; empty unless lenient."""
        return list(dict.fromkeys(self._problems or ()))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per attempt: what names it, every column, and in `variant` what sets it apart from its peers.

        `net_settings` holds those of the net as JSON, `tuned` the names of settings that a search has chosen.
        Runs that were only probed are left out, unless there are no others.
        """
        return self.frame([row for row in self.rows if not row.probe_only] or self.rows)

    @cached_property
    def probed(self) -> pd.DataFrame:
        """As `runs`, with those that were only probed in any case."""
        return self.frame(self.rows)

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of each run, of experiment, net and method together, by `run_id`."""
        return {row.run_id: row.settings for row in self.rows}

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves, an epoch a row; `rule_` columns are metrics of a rule's own, means over its steps."""
        table = self.table("curve")
        fields = list(dict.fromkeys([*CURVE, *(str(field) for field in table if field not in KEY)]))
        return table.reindex(columns=[*KEY, *fields]).astype(dict.fromkeys(fields, float))

    def target_of(self, shown: float) -> float:
        """A target as tables show it, in per cent say, in the own unit of the runs' primary metric.

        Raises: ConfigError where the metric has no such value, or the runs are judged by several.
        """
        if len(self.primaries) > 1:
            words = ", ".join(primary.word for primary in self.primaries)
            raise ConfigError(f"--target: the runs are judged by {words}; choose runs of one metric with --select")
        (judge,) = self.primaries
        low, high = judge.bounds
        if not low <= shown <= high:
            raise ConfigError(f"--target {shown:g}: {judge.word} is from {low:g} to {high:g}")
        return shown / judge.scale

    @cached_property
    def environments(self) -> dict[str, dict[str, Any]]:
        """Facts about the machines, by `env_id`."""
        return {str(row.environment.get("env_id")): dict(row.environment) for row in self.rows if row.environment}

    @cached_property
    def tables(self) -> list[str]:
        """The names of the tables that runs brought, beside their curves."""
        files = {name for row in self.rows for name in row.names if name.endswith(".csv")}
        return sorted(name.removesuffix(".csv") for name in files - {"curve.csv"})

    def table(self, name: str) -> pd.DataFrame:
        """The rows of a table from all runs that have it, each with what names its run; empty where none has it."""
        keys: dict[str, list[Any]] = {field: [] for field in KEY}
        cells: dict[str, list[str | None]] = {}
        n = 0
        for row in self.rows:
            fields, lines = self._parsed(row, f"{name}.csv", _curve if name == "curve" else _table) or ([], [])
            values = row.values
            for field in KEY:
                keys[field] += [values[field]] * len(lines)
            for k, field in enumerate(fields):
                column = cells.setdefault(field, [])
                column += [None] * (n - len(column))
                column += [line[k] or None for line in lines]
            n += len(lines)
        return pd.DataFrame(
            {
                **keys,
                "seed": _seeds(keys["seed"]),
                **{f: _typed([*column, *[None] * (n - len(column))]) for f, column in cells.items()},
            }
        )

    @cached_property
    def artifacts(self) -> "dict[str, list[Artifact]]":
        """What runs left for pictures, by run, with numpy arrays. Nothing is unpickled."""
        from bench.record.artifacts import from_bytes

        left = {row.run_id: self._parsed(row, "artifacts.npz", from_bytes) for row in self.rows}
        return {run_id: artifacts for run_id, artifacts in left.items() if artifacts}

    @cached_property
    def columns(self) -> list[Column]:
        """The declared columns, then those that the records themselves declare; of metrics those that records hold."""
        known = {column.name: column for column in self._declared}
        for row in self.rows:
            for column in row.columns:
                known.setdefault(column.name, column)
        held = {name for row in self.rows for name, value in row.summary.items() if value is not None}
        return primary.arranged(known.values(), {row.primary for row in self.rows} or {FIRST_METRIC}, held)

    @cached_property
    def primaries(self) -> list[Primary]:
        """The primary metrics of the runs, accuracy first. Rows of different ones are never compared.

        Raises: StoreError where no column says which way the metric of a run that ended well is better.
        """
        keys = primary.keys_of(self.runs)
        found = primary.primaries(set(keys), self.columns)
        for key in set(keys[self.runs["status"] == "ok"]).difference(of.key for of in found):
            raise StoreError(f"no column declares the metric '{key[:60]}'; name its file with --plugin")
        return found or [primary.ACCURACY]

    @cached_property
    def specs(self) -> dict[str, Mapping[str, Any]]:
        """What each run was asked to do, by run."""
        return {row.run_id: row.spec for row in self.rows}

    @cached_property
    def searches(self) -> list[Found]:
        """What searches for settings tried and found, in all experiments that the records are of."""
        folders = sorted({row.record.folder for row in self.rows})
        found: list[Found] = []
        for folder in folders:
            with self._noted():
                found += searches.load(searches.beside(folder))
        return found

    @cached_property
    def scaling(self) -> list[scaling.Point]:
        """What `bench scale` measured and modelled, points in no order."""
        return scaling.load(self.root, self._problems)

    @cached_property
    def stderr(self) -> dict[str, str]:
        """The end of what each run that did not end well wrote to stderr, by run; only of those that wrote any."""
        failed = [row for row in self.rows if row.values["status"] != "ok"]
        read = {row.run_id: self._parsed(row, "stderr.txt", _tail) for row in failed}
        return {run_id: text for run_id, text in read.items() if text}

    @cached_property
    def n_probed(self) -> int:
        """How many runs were only probed, not trained."""
        return sum(row.probe_only for row in self.rows)

    @cached_property
    def n_older(self) -> int:
        """How many runs are left out because newer code has some of the same method, net and data set."""
        return self._sampled.n_older

    @cached_property
    def n_other_data(self) -> int:
        """How many runs are left out because newer ones are over other data of the same name."""
        return self._sampled.n_other_data

    @cached_property
    def n_repeats(self) -> int:
        """How many runs repeat another one to measure something else, and are counted once with it."""
        return self._sampled.n_repeats

    @property
    def unshown(self) -> list[str]:
        """What is not among the rows, and why, a line for each reason."""
        shown = "`--all-sources` shows all"
        reasons = [
            (self.n_older, "left out", f"made by earlier code of a method or net that has newer runs here; {shown}"),
            (self.n_other_data, "left out", f"over other data than the newest runs of the same name; {shown}"),
            (self.n_repeats, "counted once", "that repeat another with other instruments; what these found is kept"),
            (self.n_contradictions, "left out", "that repeat another and contradict it; the last one stands"),
        ]
        return [f"{what}: {n} run{'' if n == 1 else 's'} {why}" for n, what, why in reasons if n]

    @cached_property
    def n_contradictions(self) -> int:
        """How many runs repeat another one and ended otherwise."""
        return self._sampled.n_contradictions

    @cached_property
    def rows(self) -> list[Row]:
        """The runs as they were recorded, in the order of all frames."""
        return samples.labelled(self.unlabelled)

    @cached_property
    def unlabelled(self) -> list[Row]:
        """The same, in no order, before they are told apart: `variant` is empty."""
        return selected(self._sampled.rows, self.select)

    def frame(self, of: Sequence[Row]) -> pd.DataFrame:
        """As `runs`, of these rows alone."""
        texts = {*WORDS, *(column.name for column in self.columns if column.text)}
        names = [*IDENTITY, *(column.name for column in self.columns)]
        cells = {name: [self._cell(row, name, name in texts) for row in of] for name in names}
        cells["variant"] = [row.variant for row in of]
        cells[PRIMARY] = [row.primary for row in of]
        cells["data_id"] = [row.data_id for row in of]
        cells["tuned"] = ["+".join(row.spec.get("tuned", ())) for row in of]
        cells["conditions"] = [row.conditions for row in of]
        cells["net_settings"] = [json.dumps(row.spec.get("net_settings", {}), sort_keys=True) for row in of]
        # each column in its type from the start, so that pandas keeps all numbers in one block, which is taken at once
        floats = [column.name for column in self.columns if not column.text]
        seeds = _seeds([row.spec["seed"] for row in of])
        numbers = {name: np.array(cells[name], dtype=float) for name in floats}
        # pandas takes an empty list for numbers, which words of other frames cannot be joined to
        words: dict[str, Any] = cells if of else dict.fromkeys(cells, np.array([], dtype=object))
        return pd.DataFrame(words | {"seed": seeds} | numbers)

    @cached_property
    def _sampled(self) -> samples.Sampled:
        return samples.sampled(self._read, all_sources=self._all_sources)

    @cached_property
    def _read(self) -> list[Row]:
        return rows.read(records(self.root, self._problems), self._problems)

    def _cell(self, row: Row, name: str, text: bool) -> Any:
        value = row.values.get(name)
        wrong = isinstance(value, bool) or not isinstance(value, str if text else (int, float))
        if value is not None and wrong:
            with self._noted():
                raise row.record.corrupt("summary.json", f"'{name}' is no {'text' if text else 'number'}")
            return None
        return value

    def _parsed(self, row: Row, name: str, parse: Callable[[bytes], T]) -> T | None:
        with self._noted():
            return parsed(row.holder(name), name, parse)
        return None

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """What cannot be read is among the problems, where there is a list of them."""
        try:
            yield
        except StoreError as error:
            if self._problems is None:
                raise
            self._problems.append(str(error))


def _tail(data: bytes) -> str:
    lines = data[-TAIL_BYTES:].decode(errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def _table(data: bytes) -> tuple[list[str], list[list[str]]]:
    fields, lines = csv_rows(data)
    if set(fields) & set(KEY):
        raise ValueError(f"columns {', '.join(fields)}")
    return fields, lines


def _curve(data: bytes) -> tuple[list[str], list[list[str]]]:
    fields, lines = csv_rows(data)
    first = CURVE[:-1]  # records from before the last field was added lack it
    more = fields[len(first) :]
    if fields[: len(first)] != first or len(set(fields)) < len(fields) or not all(map(FIELD.fullmatch, more)):
        raise ValueError(f"columns {', '.join(fields)}")
    for cell in chain.from_iterable(lines):
        if not NUMBER.fullmatch(cell):
            raise ValueError(f"{cell[:40]!a} is no number")
    return fields, lines


def _seeds(seeds: Sequence[int]) -> "pd.Series[Any]":
    """Exact integers, of int64 where all are; never floats, and no uint64, which becomes float beside int64."""
    small = all(-(2**63) <= seed < 2**63 for seed in seeds)
    return pd.Series(list(seeds), dtype="int64" if small else object)


def _typed(cells: list[str | None]) -> "pd.Series[Any]":
    """Numbers where every cell is one or empty."""
    column = pd.Series(cells, dtype=object)
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column
