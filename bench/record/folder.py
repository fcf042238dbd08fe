"""The folder of one run, as the run writes it.

    results/<experiment>/<run_id>/{spec,env,summary}.json, curve.csv, stdout.txt, stderr.txt, and where there is any
    <table>.csv, artifacts.npz, columns.json, checkpoint.pt

Every file is written under a temporary name and renamed, so that a kill at any moment leaves a whole old file
or a whole new one. A folder is worked on under a lock, so that several processes can share an experiment.
"""

import contextlib
import fcntl
import io
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.api.status import FINAL, RESUMABLE
from bench.record import forms
from bench.record.files import SAFE_NAME, atomic_write, cause, csv_bytes, json_bytes, safe_name
from bench.record.schema import CURVE, SCHEMA

if TYPE_CHECKING:
    from bench.api.artifact import Artifact


class RunFolder:
    """The record of one run. Raises: StoreError where a name would leave the results folder."""

    def __init__(self, root: Path, experiment: str, run_id: str) -> None:
        self.run_id = safe_name(run_id, "a run")
        self.path = root / safe_name(experiment, "an experiment") / run_id
        self.checkpoint = self.path / "checkpoint.pt"
        self.stdout = self.path / "stdout.txt"
        self.stderr = self.path / "stderr.txt"

    def create(self, spec: Mapping[str, Any], environment: Mapping[str, Any] | None) -> None:
        self.write_json("spec.json", {**spec, "run_id": self.run_id, "schema": SCHEMA})
        if environment is not None:
            self.write_json("env.json", environment)

    def has_spec(self) -> bool:
        return (self.path / "spec.json").exists()

    def lock(self) -> int | None:
        """A file descriptor that holds the folder until all its copies are closed; None if another process has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {cause(error)}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def is_held(self, fd: int) -> bool:
        """Whether the lock is that of the folder here: one that was removed may have been made anew."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path / ".lock"))
        except OSError:
            return False

    def clear(self) -> None:
        """Forget an earlier attempt; the lock stays."""
        for file in self.path.iterdir():
            if file.name != ".lock":
                file.unlink()

    def summary(self) -> dict[str, Any] | None:
        """The closing record, if there is one. Raises: StoreError where it is corrupt."""
        path = self.path / "summary.json"
        if not path.exists():
            return None
        try:
            return forms.summary(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is corrupt ({error}); remove its folder and run again") from error

    def is_final(self) -> bool:
        summary = self.summary()
        return summary is not None and summary.get("status") in FINAL

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the closing record; only then is the checkpoint given up, unless the run is to be continued.

        To be called under the lock: what a killed process has left half written is removed.
        """
        self.write_json("summary.json", summary)
        if summary["status"] not in RESUMABLE:
            self.checkpoint.unlink(missing_ok=True)
        for litter in self.path.glob(".*.tmp"):
            litter.unlink(missing_ok=True)

    def files(self) -> dict[str, bytes]:
        """All that the record has by now, to be sent elsewhere, but what is hidden: the lock, half-written files."""
        try:
            found = [path for path in self.path.iterdir() if SAFE_NAME.fullmatch(path.name)]
            return {path.name: path.read_bytes() for path in found}
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {cause(error)}") from error

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Make the record what came from elsewhere, its closing part last. Raises: StoreError."""
        for name in files:
            safe_name(name, "a file of a record")
        for name in sorted(files, key=lambda name: name == "summary.json"):
            atomic_write(self.path / name, files[name])
        for path in self.path.iterdir():
            if SAFE_NAME.fullmatch(path.name) and path.name not in files:
                path.unlink()

    def write_json(self, name: str, value: Any) -> None:
        atomic_write(self.path / name, json_bytes(value))

    def write_curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.write_table("curve", CURVE, rows)

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

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save({**state, "run_id": self.run_id}, buffer)
        atomic_write(self.checkpoint, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state of the run when it was interrupted, or None. Nothing is unpickled but tensors and plain values.

        Raises: StoreError where the file is not that.
        """
        import torch

        if not self.checkpoint.exists():
            return None
        try:
            state: Any = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).partition("\n")[0]
            raise StoreError(f"{self.checkpoint} is corrupt ({why}); remove it and run again") from error
        if not isinstance(state, dict) or state.get("run_id") != self.run_id:
            raise StoreError(f"{self.checkpoint} is that of another run; remove it and run again")
        return state


def last_end(experiment: Path) -> float:
    """When the last of an experiment's runs ended, by the records that can be read; 0 where there is none."""
    ends = [0.0]
    for path in experiment.glob("*/summary.json"):
        with contextlib.suppress(OSError, ValueError):
            ends.append(float(forms.summary(path.read_bytes()).get("finished_at") or 0.0))
    return max(ends)


def busy_since(path: Path) -> float | None:
    """When the process that holds the folder took it up; None where none does."""
    try:
        fd = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (path / "spec.json").stat().st_mtime if (path / "spec.json").exists() else time.time()
    finally:
        os.close(fd)
    return None
