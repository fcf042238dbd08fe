"""Where run records lie: in folders, or packed in one file per experiment. Both are read through one door."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.api.errors import StoreError
from bench.record import scaling
from bench.record.files import SAFE_NAME, cause
from bench.record.folder import busy_since
from bench.record.searches import TUNING

PACK, PLAN = "records.zip", "plan.json"
BESIDE_RUNS = {PACK, PLAN, "summary.csv", ".lock"}
LARGEST = 2**28  # bytes of one file in a pack; records are small, so more is an attack or a mistake


@dataclass(frozen=True)
class Record:
    """The files of one run. folder: its experiment's.

    place and mend: where the files lie, and what to do where one is corrupt; for messages.
    """

    folder: Path
    run_id: str
    place: str
    mend: str
    names: frozenset[str]
    load: Callable[[str], bytes]
    is_busy: Callable[[], bool] = lambda: False  # whether a process is at work on it

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None where there is none. Raises: StoreError where it cannot be read."""
        return self.load(name) if name in self.names else None

    def corrupt(self, name: str, why: object) -> StoreError:
        """To be raised where a file does not hold what it should."""
        return StoreError(f"{self.place}/{name} is corrupt ({' '.join(str(why).split())}); {self.mend}")


def records(root: Path, problems: list[str] | None = None) -> list[Record]:
    """All records below a folder: a run's, an experiment's, or one of several experiments.

    A run that is both packed and in a folder is that in the folder. The trials of searches are no runs to report,
    unless root is their own folder. problems: where to say that there is none, that a pack is corrupt, or what else
    lies among the runs. Raises: StoreError where there is no such list, or no such folder.
    """
    if not root.is_dir():
        raise StoreError(f"{root}: no such folder; run `bench run` first or name the results folder")
    root = root.resolve()
    try:
        if (root / "spec.json").exists():
            return [_of_folder(root)]
        found = _of_experiment(root, problems)
        for folder in _folders(root):
            if not folder.name.endswith(TUNING):
                found += _of_experiment(folder, problems)
    except OSError as error:
        raise StoreError(f"cannot read {error.filename or root}: {cause(error)}") from error
    if not found and not scaling.exist(root):
        none = StoreError(f"{root} holds no run records; run `bench run` first or name the results folder")
        if problems is None:
            raise none
        problems.append(str(none))
    return found


def _of_experiment(folder: Path, problems: list[str] | None) -> list[Record]:
    found: dict[str, Record] = {}
    if (folder / PACK).exists():
        try:
            found = {record.run_id: record for record in _of_pack(folder / PACK)}
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
    inner = _folders(folder)
    runs = {path.name: _of_folder(path) for path in inner if (path / "spec.json").exists()}
    if problems is not None and (runs or found):
        strange = [path for path in inner if path.name not in runs and (path / "summary.json").exists()]
        problems += [f"{path} has no spec.json; it is left out" for path in strange]
        others = {path.name for path in folder.iterdir() if path.is_file()} - BESIDE_RUNS
        problems += [f"{folder / name} is no part of the records; it is passed by" for name in sorted(others)]
    return list((found | runs).values())


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir())


def _of_folder(path: Path) -> Record:
    def load(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path / name}: {cause(error)}") from error

    mend = "remove its folder and run again"
    return Record(
        path.parent, path.name, str(path), mend, frozenset(os.listdir(path)), load, lambda: busy_since(path) is not None
    )


def _of_pack(path: Path) -> list[Record]:
    mend = "restore the file, or remove it and pack the runs again"
    try:
        pack = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        members = pack.infolist()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is corrupt ({error}); {mend}") from error
    names: dict[str, set[str]] = {}
    for member in members:
        run_id, _, name = member.filename.partition("/")
        if not (SAFE_NAME.fullmatch(run_id) and SAFE_NAME.fullmatch(name)):
            raise StoreError(f"{path} is refused: '{member.filename!a}' is no file of a run; {mend}")
        if member.file_size > LARGEST or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise StoreError(f"{path} is refused: '{member.filename}' is too large or oddly compressed; {mend}")
        names.setdefault(run_id, set()).add(name)

    def record(run_id: str) -> Record:
        def load(name: str) -> bytes:
            try:
                return pack.read(f"{run_id}/{name}")
            except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
                raise StoreError(f"{path} is corrupt ({error}); {mend}") from error

        return Record(path.parent, run_id, f"{path}/{run_id}", mend, frozenset(names[run_id]), load)

    return [record(run_id) for run_id in sorted(names) if "spec.json" in names[run_id]]
