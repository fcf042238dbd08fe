"""Locks of folders: who works on a run, or changes a file that several processes share."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.api.errors import StoreError
from bench.record.files import below, cause, open_regular, safe_name

NO_LOCKS = "name a folder on a disk of this machine with --results, or mount it with locks"


def lock(path: Path) -> int | None:
    """Hold a lock file, made where there is none; None if another process has it.

    Raises: StoreError where it cannot be made, or its file system has no locks.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write {path.parent}: {cause(error)}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            raise StoreError(f"{path.parent} cannot be locked ({cause(error)}): {NO_LOCKS}") from error
        if is_at(fd, path):
            return fd
        os.close(fd)  # it was removed by who had it


def is_at(fd: int, path: Path) -> bool:
    """Whether an open file is the one of this name: one that was removed may have been made anew."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


@contextlib.contextmanager
def locked(path: Path, patience_s: float = 60.0, *, stays: bool = False) -> Iterator[None]:
    """Hold a lock file for a moment, waiting for who has it. stays: the file is not removed afterwards.

    Raises: StoreError, also where another process keeps it.
    """
    deadline = time.monotonic() + patience_s
    while (fd := lock(path)) is None:
        if time.monotonic() >= deadline:
            raise StoreError(f"{path.parent} is at work; wait for its end or stop it, then run the same command again")
        time.sleep(0.02)
    try:
        yield
    finally:
        with contextlib.suppress(OSError), open(fd):  # given free whatever happens
            if not stays:
                path.unlink()


def prepare(root: Path, experiment: str) -> None:
    """Make an experiment's folder and try a lock in it, before anything is planned for it.

    Raises: StoreError where it is reached by a link, cannot be written, or has no locks; no new folder is left then.
    """
    try_lock(below(root, safe_name(experiment, "an experiment")))


def try_lock(folder: Path) -> None:
    """Make a folder and try a lock in it. Raises: StoreError as in `prepare`; no new folder is left then."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    trial = folder / f".trial.{os.getpid()}.tmp"
    try:
        fd = lock(trial)
        if fd is not None:
            os.close(fd)
    except StoreError:
        _take_back(trial, missing)
        raise
    _take_back(trial, [])


def _take_back(file: Path, folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError, ValueError):
        file.unlink(missing_ok=True)
    for folder in folders:  # the innermost first
        with contextlib.suppress(OSError, ValueError):
            folder.rmdir()


def busy_since(path: Path) -> float | None:
    """When the process that holds the folder took it up; None where none does, or that cannot be told."""
    try:
        fd = open_regular(path / ".lock")
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return (path / "spec.json").lstat().st_mtime
        except OSError:
            return time.time()
    except OSError:  # no locks here
        return None
    finally:
        os.close(fd)
    return None
