"""The folder of one run, as the run writes it.

    results/<experiment>/<run_id>/{spec,env,summary}.json, curve.csv, stdout.txt, stderr.txt, and where there is any
    <table>.csv, artifacts.npz, weights.safetensors, columns.json, checkpoint.pt

Every file is written under a temporary name and renamed, so that a kill at any moment leaves a whole old file
or a whole new one. A folder is worked on under a lock, so that several processes can share an experiment.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.api.status import FINAL, RESUMABLE
from bench.record import checkpoint, forms
from bench.record.files import (
    SAFE_NAME,
    atomic_write,
    below,
    cause,
    csv_bytes,
    is_link,
    json_bytes,
    read_regular,
    safe_name,
)
from bench.record.locks import is_at, lock
from bench.record.schema import CURVE, SCHEMA, WEIGHTS

if TYPE_CHECKING:
    from bench.api.artifact import Artifact


class RunFolder:
    """The record of one run. Raises: StoreError where a name would leave the results folder."""

    def __init__(self, root: Path, experiment: str, run_id: str) -> None:
        self.run_id = safe_name(run_id, "a run")
        self.experiment = safe_name(experiment, "an experiment")
        self.root = root
        self.path = root / experiment / run_id
        self.checkpoint = self.path / "checkpoint.pt"
        self.stdout = self.path / "stdout.txt"
        self.stderr = self.path / "stderr.txt"

    def check(self) -> None:
        """Raises: StoreError where the folder is reached by a link below the results folder."""
        below(self.root, self.experiment, self.run_id)

    def create(self, spec: Mapping[str, Any], environment: Mapping[str, Any] | None) -> None:
        self.write_json("spec.json", {**spec, "run_id": self.run_id, "schema": SCHEMA})
        if environment is not None:
            self.write_json("env.json", environment)

    def has_spec(self) -> bool:
        return (self.path / "spec.json").exists()

    def lock(self) -> int | None:
        """A file descriptor that holds the folder until all its copies are closed; None if another process has it.

        Raises: StoreError where the folder cannot be written, or its file system has no locks.
        """
        self.check()
        return lock(self.path / ".lock")

    def is_held(self, fd: int) -> bool:
        """Whether the lock is that of the folder here: one that was removed may have been made anew."""
        return is_at(fd, self.path / ".lock")

    def clear(self) -> None:
        """Forget an earlier attempt; the lock stays. Raises: StoreError for what is not the run's."""
        self._remove(path for path in self.path.iterdir() if path.name != ".lock")

    def _remove(self, paths: Iterable[Path]) -> None:
        """Links themselves, never what they lead to."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"cannot remove {path}: {cause(error)}; remove it, and run again") from error

    def summary(self) -> dict[str, Any] | None:
        """The closing record, if there is one. Raises: StoreError where it is corrupt."""
        self.check()
        path = self.path / "summary.json"
        try:
            return forms.summary(read_regular(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is corrupt ({cause(error)}); remove its folder and run again") from error

    def is_final(self) -> bool:
        summary = self.summary()
        return summary is not None and summary.get("status") in FINAL

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the closing record; only then is the checkpoint given up, unless the run is to be continued.

        To be called under the lock: what a killed process has left half written is removed.
        """
        self.write_json("summary.json", summary)
        if summary["status"] not in RESUMABLE:
            self._remove([self.checkpoint])
        self._remove(self.path.glob(".*.tmp"))

    def files(self) -> dict[str, bytes]:
        """All that the record has by now, to be sent elsewhere, but what is hidden: the lock, half-written files."""
        self.check()
        try:
            found = [path for path in self.path.iterdir() if SAFE_NAME.fullmatch(path.name)]
            return {path.name: read_regular(path, None) for path in found}
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {self.path}: {cause(error)}") from error

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Make the record what came from elsewhere. To be called under the lock. Raises: StoreError.

        A kill at any moment leaves the old record, the new one, or one that has not ended.
        """
        self.check()
        for name in files:
            safe_name(name, "a file of a record")
        if any(self._differs(name, data) for name, data in files.items()):
            self._remove([self.path / "summary.json"])
        for name in sorted(files, key=lambda name: (name == "summary.json", name)):
            if name == "summary.json":  # whatever is not of the new record is gone before that is said to have ended
                self._remove(self._others(files))
            if self._differs(name, files[name]):
                atomic_write(self.path / name, files[name])
        self._remove(self._others(files))

    def _differs(self, name: str, data: bytes) -> bool:
        try:
            return read_regular(self.path / name, None) != data
        except (OSError, ValueError):
            return True

    def _others(self, files: Mapping[str, bytes]) -> list[Path]:
        """What an earlier record or a killed process has left."""
        there = self.path.iterdir() if self.path.is_dir() else ()
        return [path for path in there if path.name not in files and path.name != ".lock"]

    def write_json(self, name: str, value: Any) -> None:
        atomic_write(self.path / name, json_bytes(value))

    def write_curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A line an epoch: the fields that all curves have, then the others of its rows: metrics of task and rule."""
        self.write_table("curve", list(dict.fromkeys([*CURVE, *chain.from_iterable(rows)])), rows)

    def write_table(self, name: str, fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        atomic_write(self.path / f"{safe_name(name, 'a table')}.csv", csv_bytes(fields, rows))

    def write_columns(self, columns: Sequence[Column]) -> None:
        """Keep the declarations of columns that a reader of the record may lack: those of instruments from outside."""
        if columns:
            self.write_json("columns.json", [asdict(column) for column in columns])

    def write_artifacts(self, artifacts: "Sequence[Artifact]") -> None:
        """Raises: ValueError where one breaks what its type says of its shapes."""
        from bench.record.artifacts import to_bytes

        if artifacts:
            atomic_write(self.path / "artifacts.npz", to_bytes(artifacts))

    def write_weights(self, state: Mapping[str, Any]) -> str:
        """Keep what a method has learnt; the file's SHA-256. Raises: MethodError for a state that has no such form."""
        from bench.record.weights import to_bytes

        data = to_bytes(state, self.run_id)
        atomic_write(self.path / WEIGHTS, data)
        return hashlib.sha256(data).hexdigest()

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        checkpoint.save(self.checkpoint, state, self.run_id)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state of the run when it was interrupted, or None. Raises: StoreError where the file is not that."""
        return checkpoint.load(self.checkpoint, self.run_id)


def last_end(experiment: Path) -> float:
    """When the last of an experiment's runs ended, by the records that can be read; 0 where there is none."""
    ends = [0.0]
    for path in experiment.glob("*/summary.json"):
        with contextlib.suppress(OSError, ValueError):
            if not is_link(path.parent):
                ends.append(float(forms.summary(read_regular(path)).get("finished_at") or 0.0))
    return max(ends)
