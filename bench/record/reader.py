"""Where run records lie: in folders, or packed in one file per experiment. Both are read through one door."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.api.errors import StoreError
from bench.record import packed, scaling
from bench.record.files import LARGEST, LINK, SAFE_NAME, cause, is_link, read_regular
from bench.record.locks import busy_since
from bench.record.schema import WEIGHTS
from bench.record.searches import TUNING

PACK, PLAN = "records.zip", "plan.json"
BESIDE_RUNS = {PACK, PLAN, "summary.csv", ".lock"}


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


def records(root: Path, problems: list[str] | None = None, *, may_be_empty: bool = False) -> list[Record]:
    """All records below a folder: a run's, an experiment's, or one of several experiments.

    A run that is both packed and in a folder is that in the folder. The trials of searches are no runs to report,
    unless root is their own folder. root itself may be a link; no link below it is followed.
    problems: where to say that there is none, that a pack is corrupt, that a folder is a link, or what else lies among
    the runs. Raises: StoreError where there is no such list, or no such folder.
    """
    if not root.is_dir():
        raise StoreError(f"{root}: no such folder; run `bench run` first or name the results folder")
    root = root.resolve()
    try:
        if is_run(root):
            return [_of_folder(root)]
        found = _of_experiment(root, problems)
        for folder in folders(root, problems):
            if not folder.name.endswith(TUNING):
                found += _of_experiment(folder, problems)
    except OSError as error:
        raise StoreError(f"cannot read {error.filename or root}: {cause(error)}") from error
    if not found and not may_be_empty and not scaling.exist(root):
        none = StoreError(f"{root} holds no run records; run `bench run` first or name the results folder")
        if problems is None:
            raise none
        problems.append(str(none))
    return found


def is_run(folder: Path) -> bool:
    return os.path.lexists(folder / "spec.json")


def folders(folder: Path, problems: list[str] | None = None) -> list[Path]:
    """Those in a folder. problems: where to say which are links. Raises: StoreError where there is no such list."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and os.path.isdir(entry.path):  # not entry.is_dir(), which fails over loops
                _refuse(f"{folder / entry.name} is refused: {LINK}", problems)
            elif entry.is_dir(follow_symlinks=False):
                found.append(folder / entry.name)
    return found


def _refuse(why: str, problems: list[str] | None) -> None:
    if problems is None:
        raise StoreError(why)
    problems.append(why)


def _of_experiment(folder: Path, problems: list[str] | None) -> list[Record]:
    found: dict[str, Record] = {}
    if os.path.lexists(folder / PACK):
        try:
            found = {record.run_id: record for record in _of_pack(folder / PACK)}
        except StoreError as error:
            _refuse(str(error), problems)
    inner = folders(folder, problems)
    runs = {path.name: _of_folder(path) for path in inner if is_run(path)}
    for name in [name for name in runs if not SAFE_NAME.fullmatch(name)]:
        _refuse(f"{folder}/{name!a} is refused: it is no name for a run; rename or remove it", problems)
        del runs[name]
    if problems is not None and (runs or found):
        strange = [path for path in inner if path.name not in runs and os.path.lexists(path / "summary.json")]
        problems += [f"{path} has no spec.json; it is left out" for path in strange if not is_run(path)]
        others = {path.name for path in folder.iterdir() if is_link(path) or path.is_file()} - BESIDE_RUNS
        problems += [f"{folder / name} is no part of the records; it is passed by" for name in sorted(others)]
    return list((found | runs).values())


def _of_folder(path: Path) -> Record:
    def load(name: str) -> bytes:
        try:
            return read_regular(path / name, None if name == WEIGHTS else LARGEST)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path / name}: {cause(error)}") from error

    mend = "remove its folder and run again"
    names = frozenset(os.listdir(path))
    return Record(path.parent, path.name, str(path), mend, names, load, lambda: busy_since(path) is not None)


def _of_pack(path: Path) -> list[Record]:
    mend = "restore the file, or remove it and pack the runs again"
    pack = packed.Pack(path, mend)

    def record(run_id: str) -> Record:
        names = frozenset(pack.names[run_id])
        return Record(path.parent, run_id, f"{path}/{run_id}", mend, names, lambda name: pack.read(f"{run_id}/{name}"))

    return [record(run_id) for run_id in sorted(pack.names) if "spec.json" in pack.names[run_id]]
