"""Where the files of data sets lie, and what is missing there."""

import os
import sys
from pathlib import Path

from bench.api.dataset import DataSet
from bench.api.errors import DataError


def default_data_dir() -> Path:
    """$BENCH_DATA, or the folder where this platform keeps a user's application data."""
    if chosen := os.environ.get("BENCH_DATA"):
        if "://" in chosen:
            raise DataError(f"$BENCH_DATA {chosen}: a URL is no folder here; copy it to this machine, or mount it")
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "backprop-free-bench"


def require(dataset: DataSet, folder: Path) -> None:
    """Say in one line what is missing, where it was sought and how to get it.

    Raises: DataError.
    """
    missing = dataset.missing(folder)
    if not missing:
        return
    if dataset.info.argument:
        raise DataError(f"{dataset.name}: no such file or folder: {missing[0]}; check the path")
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    size = f" ({dataset.info.size})" if dataset.info.size else ""
    mend = f"add --download{size} or name"
    if not dataset.can_be_fetched:
        mend = "it cannot be downloaded; put its files there, or name"
    raise DataError(
        f"{dataset.name} is not in {folder} (missing {missing[0]}{more}); {mend} the folder that holds it "
        "with --data-dir"
    )
