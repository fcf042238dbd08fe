"""Run records on disk: one folder per run, whole files only, and the pandas view over them.

    results/<experiment>/<run_id>/{spec,env,summary}.json, curve.csv, stderr.txt, and where there is any
    alignment.csv, ways.csv, exhibits.npz, checkpoint.pt

Every file is written under a temporary name and renamed, so that a kill at any moment leaves a whole old file
or a whole new one. A folder is worked on under a lock, so that several processes can share an experiment.
"""

import contextlib
import errno
import fcntl
import io
import json
import math
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bench.errors import StoreError
from bench.plan import RunSpec
from bench.status import FINAL, RESUMABLE, Status

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

SUMMARY_COLUMNS = (
    "run_id experiment method net dataset seed status reason test_acc test_acc_std test_acc_noise_free val_acc "
    "train_loss epochs batch_size steps train_s eval_s data_s setup_s step_ms_p50 step_ms_p95 examples_per_s "
    "gpu_peak_alloc_bytes gpu_peak_reserved_bytes cpu_peak_rss_bytes retained_bytes live_peak_bytes "
    "params_inference params_training_only "
    "device env_id"
).split()
TEXT_COLUMNS = {"run_id", "experiment", "method", "net", "dataset", "status", "reason", "device", "env_id", "variant"}
# what else than a setting may tell two runs of one method apart
VARIED = (
    *("method_source", "epochs", "batch_size", "val_fraction", "device"),
    *("precision", "channels_last", "compile"),
)
ALIGNMENT_COLUMNS = "epoch step layer cosine".split()
WAYS_COLUMNS = "sampler steps accuracy n_images".split()
CURVE_COLUMNS = "epoch step train_loss val_acc val_acc_noise_free train_s data_s eval_s".split()


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file by a whole new one. Raises: StoreError, with the old file untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {_cause(error)}") from error


def _cause(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the same command again, it resumes"
    return error.strerror or str(error)


class RunFolder:
    """The record of one run."""

    def __init__(self, root: Path, experiment: str, run_id: str) -> None:
        if not SAFE_NAME.fullmatch(experiment):
            raise StoreError(f"'{experiment}' is no name for an experiment: letters, digits, '.', '_' and '-' only")
        self.run_id = run_id
        self.path = root / experiment / run_id
        self.checkpoint = self.path / "checkpoint.pt"
        self.stderr = self.path / "stderr.txt"

    def create(self, spec: RunSpec, environment: Mapping[str, Any]) -> None:
        self.write_json("spec.json", {**spec.model_dump(mode="json"), "run_id": self.run_id})
        self.write_json("env.json", environment)

    def lock(self) -> int | None:
        """A file descriptor that holds the folder until all its copies are closed; None if another process has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {_cause(error)}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def clear(self) -> None:
        """Forget an earlier attempt; the lock stays."""
        for file in self.path.iterdir():
            if file.name != ".lock":
                file.unlink()

    def summary(self) -> dict[str, Any] | None:
        path = self.path / "summary.json"
        return _read_json(path) if path.exists() else None

    def is_final(self) -> bool:
        summary = self.summary()
        return summary is not None and summary.get("status") in FINAL

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the closing record; only then is the checkpoint given up, unless the run is to be continued."""
        self.write_json("summary.json", summary)
        if summary["status"] not in RESUMABLE:
            self.checkpoint.unlink(missing_ok=True)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(_jsonable(value), indent=1, sort_keys=True, allow_nan=False)
        atomic_write(self.path / name, text.encode() + b"\n")

    def write_curve(self, rows: list[dict[str, Any]]) -> None:
        self._write_csv("curve.csv", CURVE_COLUMNS, rows)

    def write_alignment(self, rows: list[dict[str, Any]]) -> None:
        self._write_csv("alignment.csv", ALIGNMENT_COLUMNS, rows)

    def write_ways(self, rows: list[dict[str, Any]]) -> None:
        self._write_csv("ways.csv", WAYS_COLUMNS, rows)

    def write_exhibits(self, arrays: "Mapping[str, np.ndarray]") -> None:
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        atomic_write(self.path / "exhibits.npz", buffer.getvalue())

    def _write_csv(self, name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        lines = [",".join(line) for line in [columns, *cells]]
        atomic_write(self.path / name, ("\n".join(lines) + "\n").encode())

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        atomic_write(self.checkpoint, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state of an interrupted run, or None. Nothing is unpickled but tensors and plain values.

        Raises: StoreError where the file is not that.
        """
        import torch

        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).partition("\n")[0]
            raise StoreError(f"{self.checkpoint} is corrupt ({why}); remove it and run again") from error
        return state


def read(root: Path) -> "tuple[pd.DataFrame, pd.DataFrame, dict[str, dict[str, Any]]]":
    """All runs, their curves and their environments below a folder (one experiment, or several).

    Raises: StoreError naming the file, where a record is corrupt or there is none at all.
    """
    import pandas as pd

    if not root.is_dir():
        raise StoreError(f"{root}: no such folder; run `bench run` first or name the results folder")
    rows, curves, environments = [], [], {}
    for path in _record_folders(root):
        spec = _read_json(path / "spec.json")
        summary = _read_json(path / "summary.json") if (path / "summary.json").exists() else {}
        identity = {"run_id": path.name, "experiment": path.parent.name}
        for name in ("method", "net", "dataset", "seed", "epochs", "batch_size"):
            if name not in spec:
                raise StoreError(f"{path / 'spec.json'} lacks '{name}'; remove the folder and run again")
            identity[name] = spec[name]
        row: dict[str, Any] = {"status": "interrupted", "reason": "stopped before its end", **summary, **identity}
        if row["status"] not in get_args(Status):
            raise StoreError(f"{path}/summary.json: unknown status '{row['status']}'; remove the folder and run again")
        chosen = {**spec.get("net_settings", {}), **spec.get("method_settings", {})}
        row["settings"] = {
            **{key: spec.get(key) for key in VARIED},
            **{key: value for key, value in chosen.items() if key not in spec.get("tuned", ())},
        }
        if (path / "env.json").exists():
            environment = _read_json(path / "env.json")
            row["env_id"] = environment.get("env_id")
            environments[str(row["env_id"])] = environment
        rows.append(row)
        if (path / "curve.csv").exists():
            curve = _read_csv(path / "curve.csv", CURVE_COLUMNS)
            curves.append(curve.astype(float).assign(run_id=path.name))
    if not rows:
        raise StoreError(f"{root} holds no run records; run `bench run` first or name the results folder")
    for row, variant in zip(rows, _variants(rows), strict=True):
        row["variant"] = variant
        del row["settings"]
    runs = pd.DataFrame(rows).reindex(columns=[*SUMMARY_COLUMNS, "variant"])
    runs = runs.astype({c: float for c in runs if c not in TEXT_COLUMNS | {"seed"}})
    runs = runs.sort_values(["dataset", "net", "method", "variant", "seed", "run_id"], ignore_index=True)
    return runs, _joined(curves, CURVE_COLUMNS, runs), environments


def read_alignment(root: Path, runs: "pd.DataFrame") -> "pd.DataFrame":
    """The angles between updates and gradients of those of `runs` that measured them; empty where none did.

    Raises: StoreError naming a corrupt file.
    """
    return _read_all(root, "alignment.csv", ALIGNMENT_COLUMNS, runs)


def read_ways(root: Path, runs: "pd.DataFrame") -> "pd.DataFrame":
    """Accuracy by sampler and number of steps of those of `runs` that have several; empty where none has.

    Raises: StoreError naming a corrupt file.
    """
    return _read_all(root, "ways.csv", WAYS_COLUMNS, runs)


def read_exhibits(root: Path, run_ids: Container[str]) -> "dict[str, dict[str, np.ndarray]]":
    """The arrays that the named runs left for pictures, by run; see Method.exhibits, with `images` and `labels` of x.

    Nothing is unpickled. Raises: StoreError naming a corrupt file.
    """
    import numpy as np

    exhibits = {}
    for path in _record_folders(root):
        file = path / "exhibits.npz"
        if path.name in run_ids and file.exists():
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    exhibits[path.name] = dict(arrays)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise StoreError(f"{file} is corrupt ({error}); remove its folder and run again") from error
    return exhibits


def _read_all(root: Path, name: str, columns: list[str], runs: "pd.DataFrame") -> "pd.DataFrame":
    """A table that some runs have, from all that have it."""
    paths = [path / name for path in _record_folders(root) if (path / name).exists()]
    tables = [_read_csv(path, columns).assign(run_id=path.parent.name) for path in paths]
    return _joined(tables, columns, runs)


def _joined(tables: "list[pd.DataFrame]", columns: list[str], runs: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of several runs in one frame, each with what names its run."""
    import pandas as pd

    rows = pd.concat(tables) if tables else pd.DataFrame(columns=[*columns, "run_id"])
    return rows.merge(runs[["run_id", "method", "net", "dataset", "seed", "variant"]], on="run_id")


def _record_folders(root: Path) -> Iterator[Path]:
    """Run folders at any of the three levels at which a user may point: runs, experiment, results."""
    for depth in ("spec.json", "*/spec.json", "*/*/spec.json"):
        for spec in sorted(root.glob(depth)):
            yield spec.parent.resolve()


def _variants(rows: list[dict[str, Any]]) -> list[str]:
    """For each row what sets it apart from another row of its method, net and data set, as a label."""
    labels = []
    for row in rows:
        peers = [r["settings"] for r in rows if all(r[k] == row[k] for k in ("method", "net", "dataset"))]
        differing = [k for k, v in row["settings"].items() if any(p.get(k, v) != v for p in peers)]
        labels.append(", ".join(f"{k}={row['settings'][k]}" for k in sorted(differing)))
    return labels


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is corrupt ({error}); remove its folder and run again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is corrupt (not an object); remove its folder and run again")
    return value


def _read_csv(path: Path, columns: list[str]) -> "pd.DataFrame":
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is corrupt ({error}); remove its folder and run again") from error
    if list(frame.columns) != columns:
        raise StoreError(f"{path} is corrupt (columns {', '.join(frame.columns)}); remove its folder and run again")
    return frame


def _jsonable(value: Any) -> Any:
    """Not-a-number becomes null: JSON has no word for it."""
    if isinstance(value, Mapping):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else repr(value)
